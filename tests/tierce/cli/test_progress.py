"""Transfer events on a terminal, in a log and as JSON."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from image.descriptor import Descriptor
from image.platform import Platform
from tests.tierce.cli.test_terminal import Screen
from tierce.cli.progress import (
    COPY,
    PULL,
    JsonView,
    PlainView,
    TerminalView,
    TransferView,
    bar_line,
    make_view,
    short_time,
)
from tierce.cli.progress_state import Meter
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
    counted,
)

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer(size: int) -> Descriptor:
    return Descriptor.of(b"x" * size, LAYER)


ONE, TWO, THREE = layer(1000), layer(2000), layer(3000)
MANIFEST = Descriptor.of(b"{}", "application/vnd.oci.image.manifest.v1+json")
EVENTS: list[Event] = [
    ImageStarted(MANIFEST, Platform("linux", "amd64"), (ONE, TWO, THREE)),
    BlobStarted(ONE, 1000),
    BlobStarted(TWO, 2000),
    BlobProgress(ONE, 500),
    UnpackStarted(ONE),
    BlobDone(ONE, "copied"),
    BlobDone(TWO, "skipped"),
    BlobDone(THREE, "mounted", "library/busybox"),
    UnpackDone(ONE, 4000),
    ManifestDone(MANIFEST, "copied"),
]


class Clock:
    """A second for each look, or as a test sets it."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def show(view: TransferView, events: Sequence[Event] = EVENTS) -> None:
    with view:
        for event in events:
            view(event)


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    show(make_view("auto", stream, {"TERM": "xterm"}, Clock(0.1), PULL))
    assert stream.getvalue().splitlines() == [
        "linux/amd64: 3 blobs",
        f"{ONE.digest.short}: Download complete 1kB",
        f"{TWO.digest.short}: Already exists",
        f"{THREE.digest.short}: Mounted from library/busybox",
        f"{ONE.digest.short}: Pull complete 4kB",
    ]


def test_a_long_transfer_tells_how_far_it_is_now_and_then() -> None:
    stream = io.StringIO()
    clock = Clock(0.0)
    view = make_view("plain", stream, {}, clock, COPY)
    view(ImageStarted(MANIFEST, None, (layer(36_000),)))
    view(BlobStarted(layer(36_000), 36_000))
    for second in range(3600):
        clock.now = float(second)
        view(BlobProgress(layer(36_000), second * 10))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "0/1 blobs 100B/36kB 10B/s 59m50s left"
    assert 50 < len(lines) < 70


def test_a_log_is_bounded_however_many_blobs_there_are() -> None:
    stream = io.StringIO()
    blobs = tuple(layer(size) for size in range(1, 1001))
    show(
        PlainView(stream, Clock(0.0)),
        [ImageStarted(MANIFEST, None, blobs), *(BlobDone(one, "copied") for one in blobs)],
    )
    assert len(stream.getvalue().splitlines()) == 201


def test_quiet_shows_warnings_alone() -> None:
    stream = io.StringIO()
    view = make_view("quiet", stream, {}, Clock())
    show(view)
    view.say("nothing")
    assert stream.getvalue() == ""
    view.warn("old\x1b[2J image")
    assert stream.getvalue() == "warning: old\ufffd[2J image\n"


class TestTerminal:
    def view(self, screen: Screen, clock: Clock, **more: Any) -> TerminalView:
        return TerminalView(screen, clock, block=LiveBlock(screen, lambda: screen.size), **more)

    def test_one_line_each_when_done(self) -> None:
        screen = Screen(80, 24)
        view = self.view(screen, Clock(), words=PULL)
        with view:
            view.say("1: Pulling from app")
            for event in EVENTS:
                view(event)
                view.draw()
            view.end(["Digest: sha256:" + "0" * 60])
        assert screen.shown == [
            "1: Pulling from app",
            f"{TWO.digest.short}: Already exists",
            f"{THREE.digest.short}: Mounted from library/busybox",
            f"{ONE.digest.short}: Pull complete 4kB",
            "Digest: sha256:" + "0" * 60,
        ]
        assert screen.cursor_shown

    def test_bars_with_rate_and_time_left(self) -> None:
        screen = Screen(100, 24)
        clock = Clock(0.0)
        view = self.view(screen, clock)
        view(ImageStarted(MANIFEST, None, (ONE, TWO)))
        view(BlobStarted(ONE, 1000))
        for second, done in enumerate([100, 200, 300], 1):
            clock.now = float(second)
            view(BlobProgress(ONE, done))
        view.draw()
        bar, total = screen.shown
        assert bar.startswith(f"{ONE.digest.short}: Copying [")
        assert bar.endswith("]        300B/1kB 100B/s 7s left")
        assert total == "0/2 blobs 300B/3kB 100B/s 27s left"

    @pytest.mark.parametrize("size", [(100, 24), (30, 24), (12, 24), (80, 5), (1, 2)])
    def test_a_hundred_blobs_in_windows_of_any_size(self, size: tuple[int, int]) -> None:
        """The screen itself fails on a line that would wrap and a cursor that leaves it."""
        screen = Screen(*size)
        clock = Clock(0.1)
        blobs = tuple(layer(1000 + number) for number in range(100))
        view = self.view(screen, clock, blobs_have_lines=False)
        with view:
            view(ImageStarted(MANIFEST, None, blobs))
            for blob in blobs:
                view(BlobStarted(blob, blob.size))
                view(BlobProgress(blob, 500))
                view.draw()
            assert len(screen.shown) <= max(1, size[1] - 1)
            if size == (100, 24):
                assert screen.shown[-2] == "... and 79 more"
            for blob in blobs:
                view(BlobDone(blob, "copied"))
        assert screen.shown == []
        assert screen.cursor_shown

    def test_a_window_that_is_made_smaller(self) -> None:
        screen = Screen(100, 24)
        view = self.view(screen, Clock(0.1))
        with view:
            view(BlobStarted(ONE, 1000))
            view.draw()
            screen.size = (20, 24)
            view.draw()
            assert screen.shown == [f"{ONE.digest.short}: 0B/1kB"]

    def test_what_else_is_written_does_not_run_into_the_bars(self) -> None:
        screen = Screen(80, 24)
        view = self.view(screen, Clock(0.1))
        with view:
            view(BlobStarted(ONE, 1000))
            view.draw()
            view.aside(lambda: print("copied: a -> b", file=screen))
            view.draw()
            assert screen.shown[0] == "copied: a -> b"
            assert screen.shown[1].startswith(ONE.digest.short)

    def test_a_failure_leaves_the_cursor_and_no_bars(self) -> None:
        screen = Screen(80, 24)
        with pytest.raises(OSError, match="gone"), self.view(screen, Clock(0.1)) as view:
            view(BlobStarted(ONE, 1000))
            raise OSError("gone")
        assert screen.shown == []
        assert screen.cursor_shown

    def test_frames_come_by_themselves(self) -> None:
        """Not one for each event: nobody waits for the terminal."""
        drawn = threading.Event()

        class Told(Screen):
            def write(self, text: str) -> int:
                drawn.set()
                return super().write(text)

        with self.view(Told(80, 24), Clock(0.0)) as view:
            view(BlobStarted(ONE, 1000))
            assert drawn.wait(10)


class TestJson:
    def events(self, events: Sequence[Event], clock: Clock) -> list[dict[str, Any]]:
        stream = io.StringIO()
        show(JsonView(stream, clock), events)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    def test_one_object_an_event(self) -> None:
        found = self.events(EVENTS, Clock())
        assert found[0] == {
            "event": "image", "seconds": 1.0, "digest": str(MANIFEST.digest), "platform": "linux/amd64", "blobs": 3,
            "total": 6000,
        }  # fmt: skip
        assert [one["phase"] for one in found[1:]] == [
            "copying", "copying", "copying", "unpacking", "unpacking", "skipped", "mounted", "unpacked", "copied",
        ]  # fmt: skip
        assert found[3] == {
            "event": "blob", "seconds": 4.0, "digest": str(ONE.digest), "phase": "copying", "bytes": 500,
            "total": 1000, "rate": 250, "eta": 2.0,
        }  # fmt: skip
        assert found[-3]["origin"] == "library/busybox"

    def test_two_a_second_and_blob(self) -> None:
        clock = Clock(0.0)
        stream = io.StringIO()
        view = JsonView(stream, clock)
        view(BlobStarted(ONE, 1000))
        for done in range(1000):
            clock.now = done / 100
            view(BlobProgress(ONE, done))
        assert 15 <= len(stream.getvalue().splitlines()) <= 22

    def test_an_error_is_an_event(self) -> None:
        stream = io.StringIO()
        with pytest.raises(OSError, match="gone"), JsonView(stream, Clock()):
            raise OSError("gone")
        assert json.loads(stream.getvalue()) == {"event": "error", "seconds": 1.0, "text": "gone"}

    def test_images_have_their_names(self) -> None:
        stream = io.StringIO()
        view = JsonView(stream, Clock())
        with view.image("docker://a/b:1") as told:
            told(BlobDone(ONE, "copied"))
        assert json.loads(stream.getvalue())["image"] == "docker://a/b:1"


def test_a_rate_is_of_the_last_seconds_and_starts_anew_after_a_retry() -> None:
    meter = Meter()
    assert meter.rate(0.0) == 0.0
    for second in range(20):
        meter.add(second * 100 if second < 10 else 1000 + (second - 10) * 10, float(second))
    assert meter.rate(19.0) == pytest.approx(10.0)
    meter.add(0, 20.0)
    assert meter.rate(20.0) == 0.0


def test_progress_is_told_by_time_and_not_by_block() -> None:
    told: list[Event] = []
    assert list(counted(ONE, iter([b"x"] * 1000), told.append)) == [b"x"] * 1000
    assert len(told) < 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.4, "59s"), (125, "2m05s"), (7260, "2h01m"), (200_000, "2d")],
)
def test_short_times(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


@pytest.mark.parametrize("columns", [10, 40, 60, 80, 200])
@pytest.mark.parametrize("done", [0, 1, 999_999, 7_810_000])
def test_a_bar_fits(columns: int, done: int) -> None:
    line = bar_line("0123456789ab: Copying", done, 7_810_000, "12.3MB/s 4s left", columns)
    assert cells(line) <= max(columns, 30)


def test_bar() -> None:
    assert bar_line("0123456789ab: Copying", 3_905_000, 7_810_000, "12MB/s 1s left", 80) == (
        "0123456789ab: Copying [=========>          ]    3.9MB/7.81MB 12MB/s 1s left"
    )
    assert bar_line("0123456789ab: Copying", 5, 10, "", 20) == "0123456789ab: 5B/10B"
