"""Grow the corpus: ``python -m tests.builder.corpus.grow [EXAMPLES]``, by default 20,000 a kind.

Random texts that reach a line, or a step from one line to another, which no kept text reaches
are kept, the shortest of them. Read the difference before you commit it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builder.test_check import TEXTS as PLANS
from tests.builder.test_corpus import CORPUS, KINDS, load, save
from tests.builder.test_instructions import LINES
from tests.builder.test_parse import PIECES
from tests.builder.test_words import SPECIAL

Steps = frozenset[tuple[str, int, int]]
TEXTS: dict[str, st.SearchStrategy[str]] = {
    "dockerfiles": st.one_of(
        PLANS,
        st.lists(PIECES, max_size=40).map("".join),
        st.lists(st.one_of(LINES, PIECES, SPECIAL.map("ENV a={}".format)), max_size=8).map("\n".join),
    ),
    "words": SPECIAL,
}


def steps_of(work: Callable[[], object]) -> Steps:
    """Which line follows which in the language's modules while ``work`` is done."""
    found: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
        file = frame.f_code.co_filename
        if "/builder/dockerfile/" not in file:
            return None
        before = 0

        def follow(frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
            nonlocal before
            if event == "line":
                found.add((file.rpartition("/")[2], before, frame.f_lineno))
                before = frame.f_lineno
            return follow

        return follow

    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(None)
    return frozenset(found)


def grow(kind: str, examples: int) -> None:
    verdict = KINDS[kind]
    candidates = {text: steps_of(lambda text=text: verdict(text)) for text in load(kind)}  # type: ignore[misc]
    reached: set[tuple[str, int, int]] = set().union(*candidates.values())

    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS[kind])
    def look(text: str) -> None:
        steps = steps_of(lambda: verdict(text))
        if not steps <= reached:
            reached.update(steps)
            candidates[text] = steps

    look()
    kept: list[str] = []
    covered: set[tuple[str, int, int]] = set()
    for text in sorted(candidates, key=lambda text: (len(text), text)):
        if not candidates[text] <= covered:
            covered |= candidates[text]
            kept.append(text)
    save(kind, kept)
    sys.stdout.write(f"{CORPUS / kind}.json: {len(kept)} texts, {len(covered)} steps\n")


if __name__ == "__main__":
    for name in KINDS:
        grow(name, int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
