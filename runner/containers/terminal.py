"""The user's terminal: raw while a container owns it, and always put back."""

from __future__ import annotations

import os
import termios
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_INPUT, _OUTPUT, _CONTROL, _LOCAL, _CHARACTERS = 0, 1, 2, 3, 6


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Every key goes to the container as it is, those that make signals too."""
    before = termios.tcgetattr(fd)
    raw = termios.tcgetattr(fd)
    raw[_INPUT] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    raw[_OUTPUT] &= ~termios.OPOST
    raw[_LOCAL] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[_CONTROL] = raw[_CONTROL] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[_CHARACTERS][termios.VMIN], raw[_CHARACTERS][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, raw)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def size(*descriptors: int) -> tuple[int, int] | None:
    """Rows and columns of the first that is a terminal."""
    for fd in descriptors:
        with suppress(OSError):
            found = os.get_terminal_size(fd)
            return found.lines, found.columns
    return None
