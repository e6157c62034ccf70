"""builder/check.py: the checks of the file and of the plan, together."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.check import check, check_options, refuse, without_unknown
from builder.dockerfile.checks import CheckOptions
from builder.dockerfile.ignore import NOTHING, IgnoreRules
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages
from builder.outline import outline, targets
from builder.plan import Source, plan, stand_in
from builder.stage_plan import PlanOptions
from image.errors import DockerfileError, InvalidInput
from image.platform import Platform

HERE = Platform("linux", "amd64")
OPTIONS = PlanOptions(platform=HERE, build_platform=HERE)


def warnings(
    text: str, options: PlanOptions = OPTIONS, *, ignore: IgnoreRules = NOTHING, every_stage: bool = False
) -> list[str]:
    document = parse(text.encode(), "Dockerfile")
    parsed = instructions(document)
    source = Source(split_stages(parsed), document.escape)
    planned = plan(source, options, stand_in, every_stage=every_stage)
    wanted = check_options(document, options.build_args)
    found = check(document, parsed, source.stages, planned, options=wanted, ignore=ignore)
    return [f"{warning.rule.name} {warning.span.start}" for warning in found]


TWO_STAGES = "FROM scratch AS a\nMAINTAINER me\nENV A=$NONE\nFROM scratch AS b\nUSER $NONE\nWORKDIR rel\n"


@pytest.mark.parametrize(
    ("target", "every_stage", "expected"),
    [
        ("", False, ["UndefinedVar 5", "WorkdirRelativePath 6"]),
        ("a", False, ["MaintainerDeprecated 2", "UndefinedVar 3"]),
        ("", True, ["MaintainerDeprecated 2", "UndefinedVar 3", "UndefinedVar 5", "WorkdirRelativePath 6"]),
    ],
    ids=["the last stage", "a target", "every stage"],
)
def test_warnings_of_the_stages_that_count_by_line(target: str, every_stage: bool, expected: list[str]) -> None:
    assert warnings(TWO_STAGES, replace(OPTIONS, target=target), every_stage=every_stage) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# check=skip=UndefinedVar\nFROM scratch\nUSER $NONE\nMAINTAINER x", ["MaintainerDeprecated 4"]),
        ("FROM scratch\n# check=skip=UndefinedVar\nUSER $NONE\nUSER $NONE", ["UndefinedVar 4"]),
        ("# check=skip=all\nFROM scratch\nUSER $NONE\nMAINTAINER x", []),
        ("FROM --platform=linux/arm64 base AS arm64\nUSER x", []),
    ],
)
def test_what_planning_notices_can_be_silenced(text: str, expected: list[str]) -> None:
    assert warnings(text) == expected


def test_the_same_warning_of_one_line_is_given_once() -> None:
    assert warnings("FROM scratch\nENV A=$NONE B=${NONE}") == ["UndefinedVar 2"]
    assert warnings("FROM scratch\nENV A=$NONE B=$NOTHING") == ["UndefinedVar 2", "UndefinedVar 2"]


def test_ignored_sources() -> None:
    assert warnings("FROM scratch\nCOPY a b /", ignore=IgnoreRules.of(["b"])) == ["CopyIgnoredFile 2"]


def test_the_argument_replaces_the_directive() -> None:
    document = parse(b"# check=skip=A;error=true\nFROM x", "Dockerfile")
    assert check_options(document, {}) == CheckOptions(frozenset({"A"}), error=True)
    assert check_options(document, {"BUILDKIT_DOCKERFILE_CHECK": "skip=B"}) == CheckOptions(frozenset({"B"}))


def test_refusing() -> None:
    text = "FROM scratch\nUSER $NONE\nMAINTAINER x\nUSER $NONE"
    document = parse(text.encode(), "Dockerfile")
    parsed = instructions(document)
    source = Source(split_stages(parsed), document.escape)
    found = check(
        document, parsed, source.stages, plan(source, OPTIONS, stand_in), options=CheckOptions(), ignore=NOTHING
    )
    refuse(found, CheckOptions())
    refuse((), CheckOptions(error=True))
    with pytest.raises(InvalidInput, match=r"^lint violation found for rules: MaintainerDeprecated, UndefinedVar$"):
        refuse(found, CheckOptions(error=True))


def test_what_rests_on_unknown_images_is_left_out() -> None:
    document = parse(b"FROM known AS a\nUSER $A\nFROM unknown\nUSER $B\nFROM scratch\nUSER $C", "Dockerfile")
    source = Source(split_stages(instructions(document)), document.escape)
    planned = plan(source, OPTIONS, stand_in, every_stage=True)
    left = without_unknown(planned, {"docker.io/library/unknown:latest"})
    assert [noticed.warning.span.start for noticed in left] == [2, 6]


FRAGMENTS = st.sampled_from([
    "FROM a", "FROM a AS x", "FROM x", "FROM $A", "FROM scratch", "FROM --platform=$B a", "ARG A=1", "ARG A", "ARG B=$A C=${D:-x}",
    "ENV A=$B", "ENV A=${A", "ENV a b", "ENV A=${B:?no}", "COPY --from=x a b", "COPY --from=0 a b", "COPY --from=img a $A",
    "COPY <<e /x\n$A ${B\ne", "ADD a b", "ADD http://h/x /", "RUN a", "RUN --mount=type=secret,id=$A a",
    "RUN --mount=from=x,target=/m a", "RUN <<e\nx\ne", "ONBUILD RUN a", "ONBUILD COPY --from=x a b", "WORKDIR $A", "USER ''",
    "EXPOSE $A", "EXPOSE 1-2", "VOLUME $A", "STOPSIGNAL $A", "SHELL [\"a\"]", "HEALTHCHECK NONE", "CMD a", "ENTRYPOINT []",
    "# check=skip=all", "# A is it", "\\", "", "NOPE",
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS, min_size=1, max_size=10).map("\n".join)


@settings(max_examples=300)
@given(
    TEXTS, st.sampled_from(["", "x", "0"]), st.dictionaries(st.sampled_from("ABCD"), st.sampled_from(["", "x", "$A"]))
)
def test_any_dockerfile_is_planned_or_refused(text: str, target: str, build_args: dict[str, str]) -> None:
    options = replace(OPTIONS, target=target, build_args=build_args)
    with suppress(DockerfileError, InvalidInput):
        assert warnings(text, options, every_stage=True) == warnings(text, options, every_stage=True)
    with suppress(DockerfileError):
        document = parse(text.encode(), "Dockerfile")
        source = Source(split_stages(instructions(document)), document.escape)
        names = [stage.name for stage in source.stages.stages]
        assert [found.name for found in targets(source, options)] == names
        asked = outline(source, options)
        assert len({argument.name for argument in asked.arguments}) == len(asked.arguments)
