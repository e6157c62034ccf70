"""builder/dockerfile/stages.py: names, targets, dependencies."""

from __future__ import annotations

import pytest

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import Stages, split_stages
from image.errors import DockerfileError


def stages_of(text: str) -> Stages:
    return split_stages(instructions(parse(text.encode(), "Dockerfile")))


THREE = """ARG V=1
FROM a:$V AS One
ARG W
FROM one AS two
COPY --from=one x y
FROM two
RUN --mount=from=TWO,target=/m --mount=type=cache,target=/c,FROM=0 true
COPY --from=alpine:3 a b
"""


def test_split() -> None:
    stages = stages_of(THREE)
    assert [arg.args for arg in stages.global_args] == [(("V", "1"),)]
    assert [(stage.index, stage.name, stage.title) for stage in stages.stages] == [
        (0, "one", "one"),
        (1, "two", "two"),
        (2, "", "stage-2"),
    ]
    assert [len(stage.commands) for stage in stages.stages] == [1, 1, 2]


def test_references_and_what_they_mean() -> None:
    stages = stages_of(THREE)
    last = stages.stages[2]
    names = [(reference.name, reference.span.start) for reference in last.references()]
    assert names == [("TWO", 7), ("0", 7), ("alpine:3", 8)]
    meant = [stages.source(last, reference) for reference in last.references()]
    assert [stage and stage.title for stage in meant] == ["two", "one", None]


@pytest.mark.parametrize(("name", "title"), [("", "stage-2"), ("one", "one"), ("TWO", "two"), ("2", "stage-2")])
def test_target(name: str, title: str) -> None:
    assert stages_of(THREE).target(name).title == title


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", 'target stage "nope" could not be found'),
        ("ne", 'target stage "ne" could not be found (did you mean one?)'),
        ("3", 'target stage "3" could not be found'),
        ("²", 'target stage "²" could not be found'),
    ],
)
def test_missing_target(name: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        stages_of(THREE).target(name)
    assert str(caught.value).startswith(message)


def test_base_lookup_minds_case_and_takes_the_latest_earlier_stage() -> None:
    stages = stages_of("FROM a AS x\nFROM b AS x\nFROM x\nFROM X\nFROM x AS x\n")
    bases = [stages.base(stage, stage.origin.image) for stage in stages.stages]
    assert [base and base.index for base in bases] == [None, None, 1, None, 1]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("FROM a AS s\nCOPY --from=t x y\nFROM b AS t\n",
         'cannot copy from stage "t", it needs to be defined before current stage "s"', 2),
        ("FROM a\nCOPY --from=1 x y\nFROM b\n",
         'cannot copy from stage "1", it needs to be defined before current stage "stage-0"', 2),
        ("FROM a\nFROM a\nCOPY --from=7 x y\n", "invalid stage index 7", 3),
    ],
)  # fmt: skip
def test_sources_must_come_first(text: str, message: str, line: int) -> None:
    stages = stages_of(text)
    with pytest.raises(DockerfileError) as caught:
        for stage in stages.stages:
            for reference in stage.references():
                stages.source(stage, reference)
    assert str(caught.value) == message
    assert caught.value.span is not None
    assert caught.value.span.start == line


def test_two_stages_that_share_a_third_are_no_cycle() -> None:
    stages_of(
        "FROM a AS s\nFROM s AS t\nCOPY --from=s x y\nFROM s\nCOPY --from=t x y\nCOPY --from=s x y\n"
    ).check_cycles()


def test_thousands_of_stages() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM a AS s{n}\nCOPY --from={n - 1} x y\n" for n in range(1, 3000))
    stages_of(text).check_cycles()


def test_a_cycle_through_mounts() -> None:
    text = "FROM a AS s\nRUN --mount=from=t,target=/t x\nFROM a AS t\nRUN --mount=type=bind,from=S,target=/t x\n"
    with pytest.raises(DockerfileError, match="circular dependency detected on stage: s"):
        stages_of(text).check_cycles()
