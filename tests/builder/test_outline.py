"""builder/outline.py: what a Dockerfile offers and asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages
from builder.outline import Wish, outline, targets
from builder.plan import Source
from builder.stage_plan import PlanOptions
from image.errors import DockerfileError
from image.platform import Platform

HERE = Platform("linux", "amd64")
OPTIONS = PlanOptions(platform=HERE, build_platform=HERE)
TEXT = """\
ARG RELEASE=3
# BASE is where it starts
ARG BASE=alpine:$RELEASE
ARG UNUSED=1

# deps has the libraries
FROM --platform=$BUILDPLATFORM $BASE AS deps
# VERSION is what to fetch
ARG VERSION=1.$MINOR
RUN --mount=type=secret,id=token --mount=type=ssh fetch
FROM deps AS test
ARG ONLY_TEST
RUN test
# unrelated comment
FROM scratch
ARG RELEASE
ARG TARGETARCH
ARG NOTHING
COPY --from=deps / /
"""


def source_of(text: str) -> Source:
    document = parse(text.encode(), "Dockerfile")
    return Source(split_stages(instructions(document)), document.escape)


def arguments(text: str, options: PlanOptions = OPTIONS) -> list[tuple[str, str | None, str]]:
    return [(a.name, a.value, a.description) for a in outline(source_of(text), options).arguments]


def test_targets() -> None:
    found = targets(source_of(TEXT), OPTIONS)
    assert [(t.name, t.default, t.description, t.base, t.platform) for t in found] == [
        ("deps", False, "has the libraries", "alpine:3", "linux/amd64"),
        ("test", False, "", "deps", ""),
        ("", True, "", "scratch", ""),
    ]
    assert [t.span.start for t in found] == [7, 11, 15]


def test_what_the_default_target_asks_for() -> None:
    found = outline(source_of(TEXT), OPTIONS)
    assert found.name == ""
    assert found.secrets == (Wish("token", False),)
    assert found.agents == (Wish("default", False),)
    assert arguments(TEXT) == [
        ("RELEASE", "3", ""),
        ("BASE", "alpine:3", "is where it starts"),
        ("VERSION", "1.", "is what to fetch"),
        ("NOTHING", None, ""),
    ]


def test_what_another_target_asks_for() -> None:
    options = replace(OPTIONS, target="test", build_args={"ONLY_TEST": "x", "BASE": "debian"})
    found = outline(source_of(TEXT), options)
    assert found.name == "test"
    assert arguments(TEXT, options) == [
        ("RELEASE", "3", ""),
        ("BASE", "debian", "is where it starts"),
        ("VERSION", "1.", "is what to fetch"),
        ("ONLY_TEST", "x", ""),
    ]


def test_a_secret_is_required_if_one_step_requires_it() -> None:
    text = "FROM a\nRUN --mount=type=secret,id=x y\nRUN --mount=type=secret,id=x,required z\nRUN --mount=type=secret,id=w v"
    assert outline(source_of(text), OPTIONS).secrets == (Wish("x", True), Wish("w", False))


def test_a_stage_of_its_own_beats_the_global_default() -> None:
    assert arguments("ARG A=1\nFROM x\nARG A=2") == [("A", "2", "")]
    assert arguments("ARG A=1\nFROM x:$A\nARG A=2") == [("A", "1", "")]


def test_no_image_is_looked_up() -> None:
    assert arguments("FROM no-such-registry.invalid/x\nCOPY --from=no-such.invalid/y / /\nARG A=1") == [("A", "1", "")]


def test_what_is_wrong_is_an_error() -> None:
    with pytest.raises(DockerfileError, match='target stage "absent" could not be found'):
        outline(source_of(TEXT), replace(OPTIONS, target="absent"))
