"""What a user sees of a transfer: bars on a terminal, plain lines elsewhere, nothing with ``--quiet``.

On a terminal the blobs in flight have a bar each, in a block that is redrawn in place;
what is finished scrolls up as one line. Everything goes to standard error, so that
standard output has the result alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Self, TextIO, assert_never

from image.digest import Digest
from tierce.cli.terminal import LiveBlock, is_live
from tierce.cli.units import human_size
from transfer.progress import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    Event,
    How,
    ImageStarted,
    ManifestDone,
    UnpackDone,
    UnpackStarted,
)

if TYPE_CHECKING:
    from types import TracebackType

_FRAME_S: Final = 0.08
_WORDS: Final[Mapping[How, str]] = {"copied": "copied", "skipped": "already there", "mounted": "mounted"}


class TransferView:
    """Shows a stream of transfer events. A context manager; call it with each event.

    ``clock`` gives seconds, for rates. ``quiet`` shows nothing at all.
    """

    def __init__(
        self,
        stream: TextIO,
        environ: Mapping[str, str],
        clock: Callable[[], float],
        *,
        quiet: bool = False,
        block: LiveBlock | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._quiet = quiet
        self._block = block or (LiveBlock(stream) if not quiet and is_live(stream, environ) else None)
        self._lock = threading.Lock()
        self._active: dict[Digest, _Blob] = {}
        self._finished: list[str] = []
        self._drawn_s = float("-inf")

    def __call__(self, event: Event) -> None:
        if self._quiet:
            return
        with self._lock:
            line = self._take(event)
            if line is not None and self._block is None:
                self._stream.write(line + "\n")
                self._stream.flush()
            elif line is not None:
                self._finished.append(line)
            self._draw(now_s=self._clock(), at_once=line is not None)

    def _take(self, event: Event) -> str | None:
        """Change the state; the line that this event leaves, if any."""
        match event:
            case ImageStarted(_, platform, blobs):
                return f"{platform}: {len(blobs)} blobs" if platform is not None and len(blobs) else None
            case BlobStarted(descriptor, total):
                self._active[descriptor.digest] = _Blob(descriptor.digest.short, total, self._clock())
            case BlobProgress(descriptor, done):
                if blob := self._active.get(descriptor.digest):
                    blob.done = done
            case BlobDone(descriptor, how):
                self._active.pop(descriptor.digest, None)
                return f"{descriptor.digest.short}: {_WORDS[how]} {human_size(descriptor.size)}"
            case UnpackStarted(descriptor):
                self._active[descriptor.digest] = _Blob(descriptor.digest.short, None, self._clock())
            case UnpackDone(descriptor, size):
                self._active.pop(descriptor.digest, None)
                return f"{descriptor.digest.short}: unpacked {human_size(size)}"
            case ManifestDone():
                return None
            case _:
                assert_never(event)
        return None

    def _draw(self, *, now_s: float, at_once: bool) -> None:
        if self._block is None or (not at_once and now_s - self._drawn_s < _FRAME_S):
            return
        self._drawn_s = now_s
        columns = self._block.columns
        bars = [blob.line(columns, now_s) for blob in self._active.values()]
        self._block.draw(bars, above=self._finished)
        self._finished.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._block is not None:
            self._block.erase()
            self._block.close()


class _Blob:
    """One blob in flight. ``total`` in bytes; None while it is unpacked, which has no measure."""

    def __init__(self, name: str, total: int | None, started_s: float) -> None:
        self._name = name
        self._total = total
        self._started_s = started_s
        self.done = 0

    def line(self, columns: int, now_s: float) -> str:
        if self._total is None:
            return f"{self._name} unpacking"
        elapsed_s = now_s - self._started_s
        rate = f"{human_size(self.done / elapsed_s)}/s" if elapsed_s > 0 and self.done else ""
        return bar_line(self._name, self.done, self._total, rate, columns)


def bar_line(name: str, done: int, total: int, rate: str, columns: int) -> str:
    """``a1b2c3d4e5f6 [=====>    ] 3.2MB/7.81MB 12MB/s``, with less of it on a narrow terminal."""
    amount = f"{human_size(done)}/{human_size(total)}".rjust(15)
    room = columns - len(name) - len(amount) - 16
    if room < 10:
        return f"{name} {amount.strip()}"
    room = min(room, 50)
    filled = room * min(done, total) // total if total else room
    bar = ("=" * (filled - 1) + ">" if 0 < filled < room else "=" * filled).ljust(room)
    return f"{name} [{bar}] {amount} {rate}".rstrip()
