"""What fuzzing found worth keeping: texts that together reach every corner of the language, and what is said of them.

``corpus/grow.py`` adds to it. A change of a verdict is a change of the language: regenerate, and read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages
from builder.dockerfile.words import expand, expand_heredoc, expand_words
from builder.plan import Source, plan, stand_in
from image.errors import DockerfileError
from tests.support.plans import OPTIONS

CORPUS = Path(__file__).parent / "corpus"
ENVIRONMENT = {"a": "alpha", "A": "", "aa": "a/b.a/c"}


def dockerfile(text: str) -> str:
    """How many steps a Dockerfile has, or what is wrong with it."""
    try:
        document = parse(text.encode("utf-8", "surrogatepass"), "f")
        source = Source(split_stages(instructions(document)), document.escape)
        planned = plan(source, OPTIONS, stand_in, every_stage=True)
    except DockerfileError as error:
        return f"{error.span or ''} {error}".strip()
    return f"{len(planned.graph.history)} entries, {len(planned.noticed)} warnings"


def word(text: str) -> str:
    """What a word comes to, whole, split and as a heredoc, for either escape character."""
    ways: list[Callable[[], object]] = [
        lambda: expand(text, ENVIRONMENT),
        lambda: expand(text, ENVIRONMENT, "`"),
        lambda: expand_words(text, ENVIRONMENT),
        lambda: expand_heredoc(text, ENVIRONMENT),
    ]
    return " | ".join(_outcome(way) for way in ways)


def _outcome(way: Callable[[], object]) -> str:
    try:
        return repr(way())
    except DockerfileError as error:
        return str(error)


KINDS: dict[str, Callable[[str], str]] = {"dockerfiles": dockerfile, "words": word}


def load(kind: str) -> dict[str, str]:
    """Texts and what was said of them."""
    path = CORPUS / f"{kind}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(kind: str, texts: Iterable[str]) -> None:
    verdicts = {text: KINDS[kind](text) for text in texts}
    (CORPUS / f"{kind}.json").write_text(json.dumps(verdicts, indent=0) + "\n")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_of_the_corpus(kind: str) -> None:
    kept = load(kind)
    assert {text: KINDS[kind](text) for text in kept} == kept
    assert kept
