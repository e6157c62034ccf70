"""builder/dockerfile/excerpt.py: source lines below a message."""

from __future__ import annotations

import pytest

from builder.dockerfile.excerpt import excerpt
from image.span import Span

LINES = [f"line {n}" for n in range(1, 11)]


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [(1, 1, range(1, 6)), (5, 5, range(3, 8)), (4, 6, range(2, 9)), (10, 10, range(6, 11)), (2, 2, range(1, 6))],
)
def test_marked_lines_and_their_surroundings(start: int, end: int, shown: range) -> None:
    text = excerpt(LINES, Span("Dockerfile", start, end))
    head, rule, *body, last = text.split("\n")
    assert (head, rule, last) == (f"Dockerfile:{start}", "-" * 20, "-" * 20)
    assert body == [f" {n:3} | {'>>>' if start <= n <= end else '   '} line {n}" for n in shown]


def test_a_short_file_is_shown_whole() -> None:
    assert excerpt(["FROM a", "", "RUN x"], Span("f", 3, 3)) == (
        "f:3\n--------------------\n   1 |     FROM a\n   2 |\n   3 | >>> RUN x\n--------------------"
    )


def test_the_terminal_is_not_at_the_files_mercy() -> None:
    text = excerpt(["a\x1b[2Jb\tc\udcff", "x" * 5000], Span("f", 1, 2))
    assert "\x1b" not in text
    assert "a\ufffd[2Jb" in text
    assert len(text) < 1000


def test_a_span_behind_the_end() -> None:
    assert ">>>" not in excerpt(["a"], Span("f", 5, 6))
