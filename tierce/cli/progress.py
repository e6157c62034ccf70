"""What a user sees of a transfer: bars on a terminal, lines elsewhere, JSON, or nothing with ``--quiet``.

Everything goes to standard error, so that standard output has the result alone. On a
terminal what is under way is a block that is redrawn in place, and what is finished scrolls
up as one line. Lines in a log are of a bounded number, however many blobs there are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TextIO

from image.descriptor import Descriptor
from image.value import dataclass
from tierce.cli.progress_state import Blob, Phase, Transfers, seconds_left
from tierce.cli.terminal import Animation, LiveBlock, cells, is_live, printable
from tierce.cli.units import human_size
from transfer.progress import BlobDone, Event, ImageStarted, ManifestDone, Progress, UnpackDone

if TYPE_CHECKING:
    from types import TracebackType

FORMATS: Final = ("auto", "plain", "tty", "json", "quiet")
_FRAME_S: Final = 0.1
_JSON_INTERVAL_S: Final = 0.5
_FIRST_TOTAL_S: Final = 10.0
_TOTAL_EVERY_S: Final = 60.0
_MOST_LINES: Final = 200
_WIDEST_BAR: Final = 50
_WIDEST_END: Final = 35
_NARROWEST_BAR: Final = 10


@dataclass(frozen=True, slots=True)
class Words:
    """How a command says what happens to a blob. ``waits_to_unpack``: a blob is not done before its files are."""

    copying: str = "Copying"
    copied: str = "Copied"
    skipped: str = "Already exists"
    mounted: str = "Mounted"
    unpacking: str = "Extracting"
    unpacked: str = "Unpacked"
    waiting: str = "Waiting"
    waits_to_unpack: bool = False

    def of(self, phase: Phase) -> str:
        word: str = getattr(self, phase)
        return word


COPY: Final = Words()
PULL: Final = Words("Downloading", "Download complete", unpacked="Pull complete", waits_to_unpack=True)
PUSH: Final = Words("Pushing", "Pushed", "Layer already exists")


class TransferView:
    """Shows a stream of transfer events: this one shows nothing. A context manager.

    Called with each event, by any thread; where several images are on their way, ``image`` gives
    what each one's events go to.
    """

    def __call__(self, event: Event) -> None:
        self.take("", event)

    @contextmanager
    def image(self, name: str) -> Iterator[Progress]:
        """Where the events of one image of several go."""
        try:
            yield lambda event: self.take(name, event)
        finally:
            self._forget(name)

    def _forget(self, image: str) -> None:
        """No more events of this image come."""

    def take(self, image: str, event: Event) -> None:
        """One event."""

    def say(self, line: str) -> None:
        """A line of the command's own."""

    def tell(self, event: str, **members: Any) -> bool:  # noqa: ARG002  # for views that do
        """An event of the command's own; False where lines are shown instead of events."""
        return False

    def end(self, lines: Sequence[str]) -> None:
        """What is to be said when all is done: below everything else."""
        for line in lines:
            self.say(line)

    def aside(self, write: Callable[[], None]) -> None:
        """Let something be written that may go to the same terminal."""
        write()

    def warn(self, text: str) -> None:
        """A warning, which is shown whatever else is not."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass


def make_view(
    form: str,
    stream: TextIO,
    environ: Mapping[str, str],
    clock: Callable[[], float],
    words: Words = COPY,
    *,
    blobs_have_lines: bool = True,
) -> TransferView:
    """The view for ``--log-format``, one of FORMATS. ``clock`` gives seconds, for rates.

    Without ``blobs_have_lines`` a blob leaves nothing behind when it is done.
    """
    if form == "auto":
        form = "tty" if is_live(stream, environ) else "plain"
    match form:
        case "json":
            return JsonView(stream, clock)
        case "tty":
            return TerminalView(stream, clock, words, blobs_have_lines=blobs_have_lines)
        case "quiet":
            return QuietView(stream)
        case _:
            return PlainView(stream, clock, words, blobs_have_lines=blobs_have_lines)


class QuietView(TransferView):
    """Nothing but warnings."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def warn(self, text: str) -> None:
        self._stream.write(f"warning: {printable(text)}\n")


class _Happened(NamedTuple):
    """An event, and the blob that it is about as it is now."""

    event: Event
    image: str
    blob: Blob | None
    now_s: float


class _View(TransferView):
    """Follows what happens, one event at a time."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float], words: Words = COPY, *, blobs_have_lines: bool = True
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._words = words
        self._blobs_have_lines = blobs_have_lines
        self._lock = threading.RLock()
        self._known = Transfers()

    def take(self, image: str, event: Event) -> None:
        with self._lock:
            now_s = self._clock()
            blob = self._known.take(image, event, now_s)
            self._show(_Happened(event, image, blob, now_s))

    def _forget(self, image: str) -> None:
        with self._lock:
            self._known.forget(image)

    def warn(self, text: str) -> None:
        self.say(f"warning: {printable(text)}")

    def _show(self, what: _Happened) -> None:
        raise NotImplementedError

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _total_line(self, now_s: float) -> str:
        """``12/40 blobs 340MB/1.2GB 45MB/s 19s left``."""
        known = self._known
        done, total, rate = known.done, known.total, known.rate(now_s)
        amount = f"{human_size(done)}/{human_size(total)}"
        return f"{known.through}/{len(known.blobs)} blobs {amount} {_speed(done, total, rate)}".rstrip()

    def _blob_line(self, blob: Blob, phase: Phase) -> str:
        """What is left of a blob that came so far."""
        if phase == "mounted" and blob.origin:
            return f"{blob.id}: {self._words.mounted} from {blob.origin}"
        size = human_size(blob.unpacked_size if phase == "unpacked" else blob.total)
        return f"{blob.id}: {self._words.of(phase)}" + ("" if phase == "skipped" else f" {size}")


class PlainView(_View):
    """A line when a blob is done, and now and then one about all of them."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float], words: Words = COPY, *, blobs_have_lines: bool = True
    ) -> None:
        super().__init__(stream, clock, words, blobs_have_lines=blobs_have_lines)
        self._interval_s = _FIRST_TOTAL_S
        self._next_total_s = clock() + self._interval_s
        self._lines = 0

    def _show(self, what: _Happened) -> None:
        event, _, blob, now_s = what
        if now_s >= self._next_total_s and self._known.blobs:
            self._line(self._total_line(now_s))
            self._interval_s = min(self._interval_s * 2, _TOTAL_EVERY_S)
            self._next_total_s = now_s + self._interval_s
        if not self._blobs_have_lines:
            return
        if isinstance(event, ImageStarted) and event.platform is not None and event.blobs:
            self._blob_lines(f"{event.platform}: {len(event.blobs)} blobs")
        if blob is not None and (phase := _reached(event)):
            self._blob_lines(self._blob_line(blob, phase))

    def _blob_lines(self, line: str) -> None:
        self._lines += 1
        if self._lines <= _MOST_LINES:
            self._line(line)
        elif self._lines == _MOST_LINES + 1:
            self._line("... and more blobs, of which there are too many for a line each")

    def say(self, line: str) -> None:
        with self._lock:
            self._line(line)


class TerminalView(_View):
    """A bar for each blob under way, a line about all of them, and finished ones above."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float],
        words: Words = COPY,
        *,
        blobs_have_lines: bool = True,
        block: LiveBlock | None = None,
    ) -> None:
        super().__init__(stream, clock, words, blobs_have_lines=blobs_have_lines)
        self._block = block or LiveBlock(stream)
        self._finished: list[str] = []
        self._last: list[str] = []
        self._ended = False
        self._animation = Animation(self.draw, _FRAME_S)

    def _show(self, what: _Happened) -> None:
        phase, blob = _reached(what.event), what.blob
        if blob is None or phase is None or not self._blobs_have_lines:
            return
        if phase != "copied" or not self._words.waits_to_unpack:
            self._finished.append(self._blob_line(blob, phase))

    def _waits(self, blob: Blob) -> bool:
        return self._words.waits_to_unpack and blob.phase == "copied"

    def draw(self) -> None:
        """One frame."""
        with self._lock:
            finished, self._finished = self._finished, []
            self._block.draw(self._rows(self._clock()), above=finished)

    def _rows(self, now_s: float) -> list[str]:
        """As many as the window has, the ones under way first."""
        blobs = list(self._known.blobs.values())
        shown = [blob for blob in blobs if blob.is_under_way] + [blob for blob in blobs if self._waits(blob)]
        if not shown:
            return []
        columns, rows = self._block.size
        room = max(1, rows - 3)
        lines = [self._row(blob, columns, now_s) for blob in shown[:room]]
        if len(shown) > room:
            lines.append(f"... and {len(shown) - room} more")
        return [*lines, self._total_line(now_s)] if len(blobs) > 1 else lines

    def _row(self, blob: Blob, columns: int, now_s: float) -> str:
        head = f"{blob.id}: {self._words.of(blob.phase)}"
        if blob.phase != "copying":
            return head
        return bar_line(head, blob.done, blob.total, _speed(blob.done, blob.total, blob.meter.rate(now_s)), columns)

    def say(self, line: str) -> None:
        with self._lock:
            if self._ended:
                self._line(line)
            else:
                self._finished.append(line)

    def end(self, lines: Sequence[str]) -> None:
        self._last += lines

    def aside(self, write: Callable[[], None]) -> None:
        with self._lock:
            self._block.erase()
            write()

    def __enter__(self) -> Self:
        self._animation.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._animation.stop()
        with self._lock:
            if error is None and self._blobs_have_lines:
                left = [blob for blob in self._known.blobs.values() if self._waits(blob)]
                self._finished += [self._blob_line(blob, blob.phase) for blob in left]
            self._block.draw([], above=[*self._finished, *self._last])
            self._block.close()
            self._ended = True


class JsonView(_View):
    """One JSON object an event, a line each: see docs/progress.md."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        super().__init__(stream, clock)
        self._began_s = clock()
        self._told_s: dict[tuple[str, str], float] = {}

    def _show(self, what: _Happened) -> None:
        event, image, blob, now_s = what
        match event:
            case ImageStarted(manifest, platform, blobs):
                total = sum(one.size for one in blobs)
                named = {"platform": str(platform)} if platform else {}
                self._tell("image", image, manifest, now_s, **named, blobs=len(blobs), total=total)
            case ManifestDone(descriptor, how):
                self._tell("manifest", image, descriptor, now_s, phase=how, total=descriptor.size)
            case _ if blob is not None and (blob.phase != "copying" or self._is_time(blob, now_s)):
                rate = blob.meter.rate(now_s)
                left = seconds_left(blob.done, blob.total, rate)
                members: dict[str, Any] = {"phase": blob.phase, "bytes": blob.done, "total": blob.total}
                if blob.phase == "copying":
                    members |= {"rate": round(rate), "eta": None if left is None else round(left, 1)}
                if blob.origin:
                    members["origin"] = blob.origin
                self._tell("blob", image, blob.descriptor, now_s, **members)

    def _is_time(self, blob: Blob, now_s: float) -> bool:
        key = (blob.image, str(blob.descriptor.digest))
        if blob.done and now_s - self._told_s.get(key, float("-inf")) < _JSON_INTERVAL_S:
            return False
        self._told_s[key] = now_s
        return True

    def _tell(self, event: str, image: str, what: Descriptor, now_s: float, **members: Any) -> None:
        named = {"image": image} if image else {}
        self._put(event, now_s, **named, digest=str(what.digest), **members)

    def _put(self, event: str, now_s: float, **members: Any) -> None:
        self._line(json.dumps({"event": event, "seconds": round(now_s - self._began_s, 3), **members}))

    def tell(self, event: str, **members: Any) -> bool:
        with self._lock:
            self._put(event, self._clock(), **members)
        return True

    def say(self, line: str) -> None:
        self.tell("message", text=line)

    def warn(self, text: str) -> None:
        self.tell("warning", text=text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            self.tell("error", text=" ".join(str(error).split()) or type(error).__name__)


def _reached(event: Event) -> Phase | None:
    """How far a blob is by an event that ends something."""
    match event:
        case BlobDone(_, how):
            return how
        case UnpackDone():
            return "unpacked"
        case _:
            return None


def _speed(done: int, total: int, rate: float) -> str:
    """``45MB/s 19s left``; "" while nothing can be said."""
    left = seconds_left(done, total, rate)
    return "" if left is None else f"{human_size(rate)}/s {short_time(left)} left"


def short_time(seconds: float) -> str:
    """``19s``, ``2m05s``, ``3h20m``, ``4d``."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m" if whole < 86_400 else f"{whole // 86_400}d"


def bar_line(head: str, done: int, total: int, tail: str, columns: int) -> str:
    """``a1b2c3d4e5f6: Copying [=====>    ] 3.2MB/7.81MB 12MB/s 1s left``, with less of it on a narrow terminal."""
    amount = f"{human_size(done)}/{human_size(total)}"
    for end, width in ((f"{amount:>15} {tail}", _WIDEST_END), (amount, 15)):  # of one width, or the bar would jump
        room = min(columns - cells(head) - width - 4, _WIDEST_BAR)
        if room >= _NARROWEST_BAR:
            return f"{head} [{_bar(done, total, room)}] {end[:width]}".rstrip()
    whole = f"{head} {amount}"
    return whole if cells(whole) <= columns else f"{head.partition(' ')[0]} {amount}"


def _bar(done: int, total: int, room: int) -> str:
    filled = room * min(done, total) // total if total else room
    return ("=" * (filled - 1) + ">" if 0 < filled < room else "=" * filled).ljust(room)
