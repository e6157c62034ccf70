"""Transfer events on a terminal and in a log."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from image.descriptor import Descriptor
from image.platform import Platform
from tierce.cli.progress import TransferView, bar_line
from tierce.cli.terminal import LiveBlock, cells
from transfer.progress import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    Event,
    ImageStarted,
    ManifestDone,
    UnpackDone,
    UnpackStarted,
)

ONE = Descriptor.of(b"1" * 1000, "application/vnd.oci.image.layer.v1.tar+gzip")
TWO = Descriptor.of(b"2" * 2000, "application/vnd.oci.image.layer.v1.tar+gzip")
MANIFEST = Descriptor.of(b"{}", "application/vnd.oci.image.manifest.v1+json")
EVENTS: list[Event] = [
    ImageStarted(MANIFEST, Platform("linux", "amd64"), (ONE, TWO)),
    BlobStarted(ONE, 1000),
    BlobStarted(TWO, 2000),
    BlobProgress(ONE, 500),
    BlobDone(ONE, "copied"),
    UnpackStarted(ONE),
    BlobDone(TWO, "skipped"),
    UnpackDone(ONE, 4000),
    ManifestDone(MANIFEST, "copied"),
]
LINES = [
    "linux/amd64: 2 blobs",
    f"{ONE.digest.short}: copied 1kB",
    f"{TWO.digest.short}: already there 2kB",
    f"{ONE.digest.short}: unpacked 4kB",
]


def _ticks() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 1.0


def _show(view: TransferView) -> None:
    with view:
        for event in EVENTS:
            view(event)


def test_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    ticks = _ticks()
    _show(TransferView(stream, {"TERM": "xterm"}, lambda: next(ticks)))
    assert stream.getvalue().splitlines() == LINES


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    _show(TransferView(stream, {}, lambda: 0.0, quiet=True))
    assert stream.getvalue() == ""


class _Frames(LiveBlock):
    """A block that remembers what it was told to draw."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), lambda: (80, 24))
        self.frames: list[list[str]] = []
        self.above: list[str] = []

    def draw(self, lines: object, *, above: object = ()) -> None:
        assert isinstance(lines, list)
        assert isinstance(above, list)
        self.frames.append(list(lines))
        self.above += above


def test_bars_while_in_flight_and_one_line_when_done() -> None:
    block = _Frames()
    ticks = _ticks()
    _show(TransferView(io.StringIO(), {}, lambda: next(ticks), block=block))
    assert block.above == LINES
    assert block.frames[-1] == []
    in_flight = max(block.frames, key=len)
    assert [line.partition(" ")[0] for line in in_flight] == [ONE.digest.short, TWO.digest.short]


def test_frames_are_not_drawn_faster_than_eyes_see() -> None:
    block = _Frames()
    with TransferView(io.StringIO(), {}, lambda: 0.0, block=block) as view:
        view(BlobStarted(ONE, 1000))
        for done in range(0, 1000, 10):
            view(BlobProgress(ONE, done))
    assert len(block.frames) == 1


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 200])
@pytest.mark.parametrize("done", [0, 1, 999_999, 7_810_000])
def test_a_bar_fits(columns: int, done: int) -> None:
    line = bar_line("0123456789ab", done, 7_810_000, "12.3MB/s", columns)
    assert cells(line) <= max(columns, 32)


def test_bar() -> None:
    assert bar_line("0123456789ab", 3_905_000, 7_810_000, "12MB/s", 80) == (
        "0123456789ab [=================>                   ]    3.9MB/7.81MB 12MB/s"
    )
    assert bar_line("0123456789ab", 5, 10, "", 20) == "0123456789ab 5B/10B"
