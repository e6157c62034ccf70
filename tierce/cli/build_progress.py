"""Views of a build's events: plain lines, a terminal that redraws, JSON lines, or nothing.

A view is called from several threads. Where output is not shown as it comes, the last
lines of a step that failed are shown at the end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from builder.progress import (
    Event,
    StepCached,
    StepCancelled,
    StepDone,
    StepFailed,
    StepOutput,
    StepStarted,
    Warned,
)
from image.errors import InvalidInput
from image.value import Protocol
from tierce.cli.terminal import Animation, LiveBlock, cells, clip, is_live, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Final, Self, TextIO

_KEPT_LINES: Final = 100
_SHOWN_LINES: Final = 6
_FRAME_S: Final = 0.1


class View(Protocol):
    """A context manager around a build; called with each event."""

    def __call__(self, event: Event) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...


def make_view(mode: str, stream: TextIO, environ: Mapping[str, str], clock: Callable[[], float]) -> View:
    """The view for ``--progress``. Raises InvalidInput for an unknown one."""
    if mode == "auto":
        mode = "tty" if is_live(stream, environ) else "plain"
    match mode:
        case "plain":
            return PlainView(stream)
        case "tty":
            return TerminalView(stream, clock)
        case "rawjson":
            return JsonView(stream)
        case "quiet" | "none":
            return QuietView(stream)
        case _:
            raise InvalidInput(f"invalid progress mode {mode!r}: want auto, plain, tty, quiet, rawjson or none")


class _Shown:
    """What a view knows of a step."""

    def __init__(self, number: int, name: str, started_s: float) -> None:
        self.number = number
        self.name = name
        self.started_s = started_s
        self.ended_s: float | None = None
        self.outcome = ""
        self.announced = False
        self.partial = ""
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def take(self, event: StepOutput) -> list[str]:
        """The lines that this output completes, each with its time since the start."""
        text = self.partial + event.data.decode("utf-8", "replace")
        *whole, self.partial = text.split("\n")
        if len(self.partial) > 1 << 16:
            whole.append(self.partial)
            self.partial = ""
        return self._keep(whole, event.at)

    def rest(self, at: float) -> list[str]:
        """The last line, if it did not end."""
        partial, self.partial = self.partial, ""
        return self._keep([partial], at) if partial else []

    def _keep(self, lines: list[str], at: float) -> list[str]:
        stamped = [f"{at - self.started_s:.3f} {printable(line.rpartition(chr(13))[2] or line)}" for line in lines]
        self.lines.extend(stamped)
        return stamped


class _Base:
    """Numbers steps in the order they show up, and serialises events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._steps: dict[str, _Shown] = {}
        self._failed: list[_Shown] = []
        self._warnings: list[Warned] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case Warned() if event not in self._warnings:  # each platform of a build finds the same
                    self._warnings.append(event)
                case Warned():
                    pass
                case StepOutput():
                    self._output(self._steps[event.step], event)
                case StepStarted():
                    self._begin(self._known(event))
                case StepCached() | StepDone() | StepFailed() | StepCancelled():
                    shown = self._known(event)
                    shown.ended_s = event.at
                    shown.outcome = _outcome(event, shown)
                    if isinstance(event, StepFailed):
                        self._failed.append(shown)
                    self._end(shown, event)

    def _known(self, event: StepStarted | StepCached | StepDone | StepFailed | StepCancelled) -> _Shown:
        if event.step not in self._steps:
            self._steps[event.step] = _Shown(len(self._steps) + 1, printable(event.name), event.at)
        return self._steps[event.step]

    def _begin(self, shown: _Shown) -> None: ...
    def _output(self, shown: _Shown, event: StepOutput) -> None:
        shown.take(event)

    def _end(self, shown: _Shown, event: Event) -> None: ...

    def _show_warnings(self) -> None:
        """All of them at the end, where they are read, as docker does."""
        if self._warnings:
            self._stream.write("\n" + warning_list(self._warnings))

    def _show_failures(self) -> None:
        """What the failed steps wrote last. An output writes nothing, and the error says all of it."""
        for shown in self._failed:
            shown.rest(shown.started_s)
            if not (shown.lines or shown.name.startswith("[")):
                continue
            self._stream.write("\n".join(["------", f" > {shown.name}:", *shown.lines, "------", ""]))


def _outcome(event: Event, shown: _Shown) -> str:
    match event:
        case StepCached():
            return "CACHED"
        case StepFailed():
            return f"ERROR: {printable(str(event.error))}"
        case StepCancelled():
            return "CANCELED"
        case StepDone():
            return f"DONE {event.at - shown.started_s:.1f}s"
        case _:
            return ""


def warning_list(warnings: Sequence[Warned]) -> str:
    """A line a warning, with the source below it."""
    count = len(warnings)
    lines = [f" {count} warning{'s' if count > 1 else ''} found:"]
    for warning in warnings:
        rule = f"{warning.rule}: " if warning.rule else ""
        where = f" (line {warning.span.start})" if warning.span else ""
        lines.append(f" - {rule}{printable(warning.message)}{where}")
        lines += warning.excerpt.splitlines()
    return "\n".join(lines) + "\n"


class PlainView(_Base):
    """Lines as BuildKit's plain progress writes them, for logs."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._show_warnings()

    def _begin(self, shown: _Shown) -> None:
        shown.announced = True
        self._line(f"#{shown.number} {shown.name}")

    def _output(self, shown: _Shown, event: StepOutput) -> None:
        for line in shown.take(event):
            self._line(f"#{shown.number} {line}")

    def _end(self, shown: _Shown, event: Event) -> None:
        if not shown.announced:
            self._begin(shown)
        for line in shown.rest(getattr(event, "at", shown.started_s)):
            self._line(f"#{shown.number} {line}")
        self._line(f"#{shown.number} {shown.outcome}\n")

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class QuietView(_Base):
    """Nothing, unless a step fails."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._show_failures()


class JsonView(_Base):
    """One JSON object an event."""

    def __call__(self, event: Event) -> None:
        import json
        from dataclasses import asdict  # takes as long to import as a build of which nothing changed

        kind = type(event).__name__
        document = asdict(event) if not isinstance(event, StepFailed) else {
            "step": event.step, "name": event.name, "error": str(event.error), "at": event.at,
        }  # fmt: skip
        if isinstance(event, StepOutput):
            document["data"] = event.data.decode("utf-8", "replace")
        with self._lock:
            self._stream.write(json.dumps({"event": kind, **document}) + "\n")
            self._stream.flush()


class TerminalView(_Base):
    """A line a step, redrawn in place, with the last output of what runs."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        super().__init__(stream)
        self._clock = clock
        self._began_s = clock()
        self._block = LiveBlock(stream)
        self._animation = Animation(self._animate, _FRAME_S)

    def __enter__(self) -> Self:
        self._animation.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._animation.stop()
        with self._lock:
            self._draw(finished=error is None)
            self._block.close()
            self._show_warnings()
            self._show_failures()

    def _animate(self) -> None:
        with self._lock:
            self._draw(finished=False)

    def _draw(self, *, finished: bool) -> None:
        steps = list(self._steps.values())
        done = sum(step.ended_s is not None for step in steps)
        took = self._clock() - self._began_s
        title = f"[+] Building {took:.1f}s ({done}/{len(steps)})" + (" FINISHED" if finished else "")
        lines = [title]
        for step in steps:
            lines.append(self._step_line(step))
            if step.ended_s is None:
                lines += [f" => => # {line}" for line in list(step.lines)[-_SHOWN_LINES:]]
        self._block.draw(lines)

    def _step_line(self, step: _Shown) -> str:
        seconds = (self._clock() if step.ended_s is None else step.ended_s) - step.started_s
        word = step.outcome.partition(" ")[0].rstrip(":")
        mark = f"{word} " if word in {"CACHED", "ERROR", "CANCELED"} else ""
        right = f" {seconds:.1f}s"
        width = max(20, self._block.columns - 1 - len(right))
        left = clip(f" => {mark}{step.name}", width)
        return left + " " * (width - cells(left)) + right
