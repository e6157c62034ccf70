"""builder/dockerfile/parse.py: lines, continuations, directives, heredocs, limits."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from dockerfile_parse import DockerfileParser
from hypothesis import example, given
from hypothesis import strategies as st

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import MAX_LINE, MAX_SIZE, parse, source_lines
from image.errors import DockerfileError
from tests.support.dockerfile_text import rejected, understood

GOLDEN = Path(__file__).parent / "golden"


def cases(folder: str) -> list[ParameterSet]:
    return [pytest.param(path, id=path.stem) for path in sorted((GOLDEN / folder).glob("*.Dockerfile"))]


@pytest.mark.parametrize("path", cases("positive"))
def test_a_good_file_means_what_its_golden_says(path: Path) -> None:
    assert understood(path.read_bytes()) == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", cases("negative"))
def test_a_bad_file_is_rejected_as_its_golden_says(path: Path) -> None:
    assert rejected(path.read_bytes()) == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_a_line_may_have_65535_bytes_with_its_end() -> None:
    longest = b"RUN " + b"x" * (MAX_LINE - 5)
    assert parse(b"FROM a\n" + longest + b"\n", "f").nodes[1].rest == "x" * (MAX_LINE - 5)
    with pytest.raises(DockerfileError, match="line greater than max allowed size of 65535") as caught:
        parse(b"FROM a\n" + longest + b"x\n", "f")
    assert caught.value.span is not None
    assert caught.value.span.start == 2


def test_a_heredoc_line_has_the_same_limit() -> None:
    with pytest.raises(DockerfileError, match="max allowed size"):
        parse(b"FROM a\nCOPY <<E /x\n" + b"y" * MAX_LINE + b"\nE\n", "f")


def test_a_file_has_a_limit() -> None:
    with pytest.raises(DockerfileError, match="larger than the maximum"):
        parse(b"#" * (MAX_SIZE + 1), "f")


def test_joined_lines_may_be_longer_than_one() -> None:
    part = b"y" * 60000
    document = parse(b"FROM a\nRUN " + part + b"\\\n" + part + b"\n", "f")
    assert len(document.nodes[1].rest) == 120000


def test_heredoc_bodies_may_hold_any_bytes_but_nul() -> None:
    copy = instructions(parse(b"FROM a\nCOPY <<'E' /x\n\xff\xfe caf\xe9\nE\n", "f"))[1]
    assert copy.inline[0].content == b"\xff\xfe caf\xe9\n"  # type: ignore[union-attr]


def test_comments_directly_above_belong_to_the_instruction() -> None:
    text = b"# lost\n\n# also lost\n#\n# one\n  # two\nFROM a\nRUN x\n"
    nodes = parse(text, "f").nodes
    assert [node.comments for node in nodes] == [("one", "two"), ()]


def test_a_span_covers_continuations_and_heredocs() -> None:
    text = b"FROM a\nRUN x \\\n # c\n y <<E\nbody\nE\nRUN z\n"
    assert [(n.span.start, n.span.end) for n in parse(text, "f").nodes] == [(1, 1), (2, 6), (7, 7)]


def test_source_lines_of_what_cannot_be_parsed() -> None:
    assert source_lines(b"\xef\xbb\xbfa\xff\r\nb\n") == ("a\ufffd", "b")


PIECES = st.sampled_from(
    ["FROM a", "RUN ", "COPY ", "ONBUILD ", "<<E", "<<-'E'", "E", "\\", "`", "\n", "\n", " ", "\t", "#", "# escape=`",
     '"', "'", "$", "${", "}", "[", "]", '["a"]', "--x", "--from=", "=", "ENV ", "a=b", "HEALTHCHECK ", "CMD ", "\r",
     "\x0b", "\u2028", "\x00", "é", "ARG ", "SHELL ", "EXPOSE ", "--mount=type=bind", "--interval=1s", "\ufeff"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
@example("ONBUILD ONBUILD ONBUILD RUN <<E\nE")
@example("FROM a\nRUN \\")
def test_no_text_gives_anything_but_instructions_or_a_dockerfile_error(text: str) -> None:
    source = text.encode("utf-8")
    try:
        document = parse(source, "f")
        instructions(document)
    except DockerfileError:
        return
    assert document.nodes


@given(st.binary(max_size=200))
def test_no_bytes_give_anything_but_instructions_or_a_dockerfile_error(source: bytes) -> None:
    try:
        instructions(parse(source, "f"))
    except DockerfileError:
        return


WORD = st.from_regex(r"[abcXYZ019_./][abcXYZ019_./-]{0,7}", fullmatch=True)
INSTRUCTION = st.one_of(
    WORD.map(lambda w: f"RUN echo {w} && \\\n    {w}"),
    WORD.map(lambda w: f"COPY {w} /{w}"),
    st.tuples(WORD, WORD).map(lambda p: f'ENV n="{p[0]} {p[1]}"'),
    WORD.map(lambda w: f'CMD ["{w}", "x"]'),
    WORD.map(lambda w: f"LABEL a={w}\n# comment {w}\n"),
    WORD.map(lambda w: f"RUN {w} \\\n# inside\n  {w}"),
)


@given(st.lists(INSTRUCTION, min_size=1, max_size=8))
def test_dockerfile_parse_sees_the_same_instructions(lines: list[str]) -> None:
    """A second opinion, on files without heredocs: that library does not know them."""
    text = "FROM base\n" + "\n".join(lines) + "\n"
    other = DockerfileParser(fileobj=BytesIO(), build_args={})
    other.content = text
    theirs = [
        (entry["instruction"], entry["startline"] + 1, entry["value"].split())
        for entry in other.structure
        if entry["instruction"] != "COMMENT"
    ]
    ours = [(node.keyword, node.span.start, node.rest.split()) for node in parse(text.encode(), "f").nodes]
    assert ours == theirs
