"""What a terminal can do, for every view that draws on one.

``LiveBlock`` keeps a block of lines at the bottom and redraws it in place with one write a
frame, overwriting rather than erasing, so that nothing flickers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Final, Self, TextIO

_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_ERASE_REST_OF_LINE: Final = "\x1b[K"
_ERASE_BELOW: Final = "\x1b[J"
_DEFAULT_SIZE: Final = (80, 24)


def is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to redraw in place: a terminal that can move its cursor, and no CI that records it."""
    return is_terminal(stream) and environ.get("TERM", "") not in {"", "dumb"} and not environ.get("CI")


def is_terminal(stream: TextIO) -> bool:
    """Whether this is a terminal; a closed or absent stream is none."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal behind ``stream``; 80 and 24 where there is none."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return _DEFAULT_SIZE
    return found.columns or _DEFAULT_SIZE[0], found.lines or _DEFAULT_SIZE[1]


def cells(text: str) -> int:
    """How many columns a terminal needs for ``text`` (without escape sequences)."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def clip(text: str, columns: int) -> str:
    """``text`` cut to at most ``columns`` cells."""
    if text.isascii():
        return text[:columns]
    used = 0
    for position, character in enumerate(text):
        used += _cell(character)
        if used > columns:
            return text[:position]
    return text


def _cell(character: str) -> int:
    from unicodedata import combining, east_asian_width  # only text that is not ASCII pays for it

    if combining(character):
        return 0
    return 2 if east_asian_width(character) in {"W", "F"} else 1


def printable(text: str) -> str:
    """Text from outside on one line, without the power to move the cursor or to colour."""
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else "\ufffd" for c in text)


class Animation:
    """Draws again and again in a thread, until it is stopped."""

    def __init__(self, draw: Callable[[], None], interval_s: float) -> None:
        import threading

        self._draw = draw
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No frame is drawn after this returns."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._draw()


class LiveBlock:
    """Lines at the bottom of a terminal. A context manager: what was drawn last stays.

    ``measure`` gives columns and rows; it is asked for each frame, so a resize is followed.
    """

    def __init__(self, stream: TextIO, measure: Callable[[], tuple[int, int]] | None = None) -> None:
        self._stream = stream
        self._measure = measure or (lambda: size(stream))
        self._height = 0
        self._hidden = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal, now."""
        return self._measure()

    @property
    def columns(self) -> int:
        return self.size[0]

    def draw(self, lines: Sequence[str], *, above: Sequence[str] = ()) -> None:
        """Replace the block by ``lines``; ``above`` is put before it and scrolls away with history.

        Lines of the block are clipped to the width; those above may go over several rows. When there are more than fit, the last ones are shown:
        the cursor can't reach what has scrolled off.
        """
        columns, rows = self._measure()
        shown = lines[-max(1, rows - 1) :]
        frame = [] if self._hidden else [_HIDE_CURSOR]
        self._hidden = True
        if self._height:
            frame.append(f"\x1b[{self._height}F")
        whole = (*above, *(clip(line, columns) for line in shown))
        frame += [f"{line}{_ERASE_REST_OF_LINE}\n" for line in whole]
        if len(whole) < self._height:
            frame.append(_ERASE_BELOW)
        self._height = len(shown)
        self._stream.write("".join(frame))
        self._stream.flush()

    def erase(self) -> None:
        """Take the block away."""
        if self._height:
            self._stream.write(f"\x1b[{self._height}F{_ERASE_BELOW}")
            self._height = 0
            self._stream.flush()

    def close(self) -> None:
        """Leave the block as it is and give the cursor back. Idempotent."""
        if self._hidden:
            self._stream.write(_SHOW_CURSOR)
            self._stream.flush()
        self._hidden = False
        self._height = 0
