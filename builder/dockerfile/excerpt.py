"""Excerpts: the lines of a Dockerfile around an error or a warning.

Spec: dockerfile.md 2, "Messages".
"""

from __future__ import annotations

from collections.abc import Sequence

from image.span import Span

_CONTEXT_LINES = 4
_RULE = "-" * 20
_WIDTH = 400


def excerpt(lines: Sequence[str], span: Span) -> str:
    """The lines of ``span`` marked with ``>>>``, with up to four lines around them.

    ``lines`` are the whole file's. Control characters are not passed on to the terminal.
    """
    start, end = _padded(span, len(lines))
    shown = [f"{span.file}:{span.start}", _RULE]
    for number in range(start, end + 1):
        mark = ">>>" if span.start <= number <= span.end else "   "
        shown.append(f" {number:3} | {mark} {_printable(lines[number - 1])}".rstrip())
    return "\n".join([*shown, _RULE])


def _padded(span: Span, count: int) -> tuple[int, int]:
    """First and last line to show; the budget is spent on both sides in turn."""
    start, end = min(span.start, count + 1), min(span.end, count)
    budget = _CONTEXT_LINES
    while budget > 0 and (start > 1 or end < count):
        if start > 1:
            start -= 1
            budget -= 1
        if end < count and budget > 0:
            end += 1
            budget -= 1
    return start, end


def _printable(line: str) -> str:
    line = line.expandtabs(8)
    if len(line) > _WIDTH:
        line = line[:_WIDTH] + "…"
    return "".join(char if char.isprintable() else "\ufffd" for char in line)
