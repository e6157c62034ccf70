"""Lines for the user."""

from __future__ import annotations

import sys


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """A line on standard output, or standard error; at once, so that both keep their order."""
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{text}\n" if nl else text)
    stream.flush()
