"""Planning: which stages, images and steps a Dockerfile comes to, without building anything."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages
from builder.draw import draw
from builder.graph import BaseImage, FromImage, RunCommand, inputs_first
from builder.plan import Source, needed, plan, unconsumed
from image.errors import DockerfileError
from image.platform import Platform
from image.reference import Reference
from tests.support.plans import (
    HERE,
    OPTIONS,
    created_by,
    graph_of,
    noticed,
    planned,
    resolve,
    run_env,
    source_of,
    steps,
    with_args,
)


def test_only_what_the_target_needs_is_planned() -> None:
    text = "FROM base AS unused\nRUN no\nFROM base AS used\nRUN yes\nFROM scratch\nCOPY --from=used /x /x"
    names = [step.name for step in inputs_first(graph_of(text).target)]
    assert names == [
        "[stage-2 1/2] FROM scratch",
        "[used 1/2] FROM base",
        "[used 2/2] RUN yes",
        "[stage-2 2/2] COPY --from=used /x /x",
    ]
    assert graph_of(text, replace(OPTIONS, target="unused")).target.name == "[unused 2/2] RUN no"


def test_images_are_known_before_they_are_looked_up() -> None:
    document = parse(b"ARG B=base\nFROM $B AS a\nFROM bare\nCOPY --from=a / /\nCOPY --from=other:1 / /", "Dockerfile")
    source = Source(split_stages(instructions(document)), document.escape)
    found = needed(source, OPTIONS)
    assert found.stages == (0, 1)
    assert sorted(reference.familiar for reference, _ in found.images) == ["bare:latest", "base:latest", "other:1"]


def test_equal_steps_are_one_step() -> None:
    text = "FROM base AS a\nRUN same\nFROM base AS b\nRUN same\nFROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b"
    assert len(steps(graph_of(text), RunCommand)) == 1


def test_a_child_stage_inherits() -> None:
    text = (
        'FROM base AS a\nENV E=1\nUSER me\nWORKDIR /w\nSHELL ["/bin/bash","-c"]\nCMD x\nFROM a\nRUN y\nENTRYPOINT ["e"]'
    )
    graph = graph_of(text)
    assert graph.config.user == "me"
    assert graph.config.working_dir == "/w"
    assert graph.config.entrypoint == ("e",)
    assert graph.config.cmd is None, "ENTRYPOINT clears a CMD that this stage did not set"
    [run] = steps(graph, RunCommand)
    assert isinstance(run.operation, RunCommand)
    assert run.operation.args == ("/bin/bash", "-c", "y")
    assert (run.operation.cwd, run.operation.user) == ("/w", "me")


def test_triggers_of_a_base_run_first_and_go() -> None:
    graph = graph_of("FROM trigger\nRUN after")
    names = [step.name for step in inputs_first(graph.target)]
    assert names[-3:] == ["[2/4] COPY . /src", "[3/4] RUN make", "[4/4] RUN after"]
    assert graph.config.on_build == ()
    assert graph_of("FROM bare\nONBUILD RUN x").config.on_build == ("RUN x",)


def test_labels_of_the_command_line_are_not_history() -> None:
    graph = graph_of("FROM bare\nLABEL a=1", replace(OPTIONS, labels={"a": "2", "b": "3"}))
    assert dict(graph.config.labels) == {"a": "2", "b": "3"}
    assert created_by(graph) == ["LABEL a=1"]


def test_a_platform_of_a_stage() -> None:
    graph = graph_of("FROM --platform=linux/arm64 base\nRUN a")
    [source] = steps(graph, FromImage)
    assert isinstance(source.operation, FromImage)
    assert source.operation.image.config.platform == Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("FROM absent", 1, "image absent:latest not found"),
        ("FROM base\nCOPY --from=later / /\nFROM base AS later", 2, "later"),
        ("FROM UPPER/Case", 1, "invalid"),
        ("FROM ${NOTHING}", 1, "should not be blank"),
        ("ARG NOTHING=\nFROM ${NOTHNIG}", 2, r"should not be blank \(did you mean NOTHING\?\)"),
        (
            "FROM --platform=$BULIDPLATFORM base",
            1,
            r"empty platform value from expression \$BULIDPLATFORM \(did you mean BUILDPLATFORM\?\)",
        ),
        ("ARG TAG=1\nFROM base:$TGA", 2, r'failed to parse stage name "base:": .* \(did you mean TAG\?\)'),
        ("FROM base\nRUN --mount=type=cache,target=/ x", 2, "invalid mount target"),
        ('FROM base\nENV A="${B:?say B}"', 2, "say B"),
        ("FROM --platform=a/b/c/d base", 1, "invalid platform"),
        ("FROM base\nRUN --device=vendor.com/class=name x", 2, "RUN --device is not supported"),
    ],
)
def test_what_is_wrong_is_shown_at_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(DockerfileError, match=problem) as caught:
        graph = graph_of(text, replace(OPTIONS, target="0" if "later" in text else ""))
        assert graph is None
    assert caught.value.span is not None
    assert caught.value.span.start == line


def test_an_absent_target() -> None:
    with pytest.raises(DockerfileError, match='target stage "test" could not be found'):
        graph_of("FROM base AS tests", replace(OPTIONS, target="test"))


def test_a_thousand_stages() -> None:
    text = "FROM base AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nRUN x{n}\n" for n in range(1000))
    assert len(steps(graph_of(text), RunCommand)) == 1000


def test_drawings_name_every_step_and_mark_the_cached() -> None:
    graph = graph_of('FROM base AS a\nRUN echo "x"\nFROM scratch\nCOPY --from=a / /')
    cached = {steps(graph, RunCommand)[0].id: 1.25}
    mermaid, dot = draw(graph, cached, "mermaid"), draw(graph, cached, "dot")
    assert "class s2 cached" in mermaid
    assert "s2 -.-> s3" in mermaid
    assert 's2 [label="[a 2/2] RUN echo \\"x\\" · 1.2 s", fillcolor=palegreen]' in dot
    assert "s2 -> s3 [style=dashed]" in dot


def test_the_picture_is_whole_by_itself() -> None:
    graph = graph_of("FROM base AS a\nRUN echo '<&>'\nFROM scratch\nCOPY --from=a / /")
    root = ET.fromstring(draw(graph, {steps(graph, RunCommand)[0].id: 2.0}, "svg"))
    boxes = [(box.get("x"), box.get("fill")) for box in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert [fill for _, fill in boxes].count("#dfd") == 1
    assert len({x for x, _ in boxes}) == 3, "a column for each distance from the sources"
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "[a 2/2] RUN echo '<&>'" in titles


def test_a_platform_of_a_stage_that_starts_from_another_means_nothing() -> None:
    graph = graph_of("FROM base AS a\nFROM --platform=linux/arm64 a\nRUN x")
    [source] = steps(graph, FromImage)
    assert isinstance(source.operation, FromImage)
    assert source.operation.image.config.platform == HERE


def test_a_base_of_another_platform_is_noticed() -> None:
    def amd64_only(reference: Reference, _platform: Platform) -> BaseImage:
        return resolve(reference, HERE)

    options = replace(OPTIONS, platform=Platform("linux", "arm64"))
    found = plan(source_of("FROM base"), options, amd64_only).noticed
    expected = 'Base image base was pulled with platform "linux/amd64", expected "linux/arm64" for current build'
    assert [note.warning.message for note in found] == [expected]
    assert noticed("FROM --platform=linux/arm64 base") == []


def test_every_stage_can_be_planned() -> None:
    text = "FROM bare AS a\nUSER $NONE\nFROM bare"
    found = plan(source_of(text), OPTIONS, resolve, every_stage=True)
    assert found.stages == {0, 1}
    assert len(found.noticed) == 1


@pytest.mark.parametrize(
    ("text", "build_args", "unused"),
    [
        ("FROM bare", {"A": "1", "B": "2"}, ("A", "B")),
        ("ARG A\nFROM bare", {"A": "1"}, ()),
        ("FROM bare AS x\nARG A\nFROM bare", {"A": "1"}, ()),
        ("FROM bare\nENV A=1", {"A": "1"}, ("A",)),
        ("FROM bare", {"http_proxy": "p", "SOURCE_DATE_EPOCH": "0", "BUILDKIT_X": "1", "TARGETARCH": "arm64"}, ()),
        ("FROM asks", {"ASKED": "1"}, ()),
    ],
    ids=["not declared", "globally", "in an unused stage", "an ENV", "known ones", "by a trigger"],
)
def test_build_arguments_that_nobody_asked_for(text: str, build_args: dict[str, str], unused: tuple[str, ...]) -> None:
    options = with_args(**build_args)
    assert unconsumed(source_of(text), options, planned(text, options)) == unused


def test_stages_whose_cache_is_not_used() -> None:
    text = "FROM bare AS One\nRUN 1\nWORKDIR /w\nFROM bare AS two\nRUN 2\nFROM one\nRUN 3\nCOPY --from=two / /"
    graph = graph_of(text, replace(OPTIONS, no_cache_stages=frozenset({"one"})))
    fresh = [step.name for step in inputs_first(graph.target) if step.fresh]
    assert fresh == ["[one 2/3] RUN 1"]


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("FROM bare AS x\nARG TARGETSTAGE\nRUN a", "", "default"),
        ("FROM bare AS x\nARG TARGETSTAGE\nRUN a", "x", "x"),
        ("FROM bare-$TARGETSTAGE", "", "bare-default"),
    ],
)
def test_targetstage(text: str, target: str, expected: str) -> None:
    options = replace(OPTIONS, target=target)
    if "RUN" in text:
        assert run_env(graph_of(text, options))["TARGETSTAGE"] == expected
    else:
        assert [image.familiar_repository for image, _ in needed(source_of(text), options).images] == [expected]


def test_a_trigger_of_an_image_reads_from_a_stage_that_nothing_else_needs() -> None:
    text = (
        "FROM bare AS lowest\nRUN lowest\nFROM lowest AS assets\nRUN assets\nFROM bare AS unused\nRUN no\nFROM copies"
    )
    names = [step.name for step in inputs_first(graph_of(text).target)]
    assert names == [
        "[stage-3 1/3] FROM copies",
        "[lowest 1/2] FROM bare",
        "[lowest 2/2] RUN lowest",
        "[assets 2/2] RUN assets",
        "[stage-3 2/3] COPY --from=assets /a /a",
        "FROM docker.io/library/base:latest",
        "[stage-3 3/3] COPY --from=base /b /b",
    ]


def test_a_trigger_that_reads_from_nothing_there_is_is_an_error_at_its_from() -> None:
    with pytest.raises(DockerfileError, match="image assets:latest not found") as caught:
        graph_of("FROM bare\nRUN x\nFROM copies")
    assert caught.value.span is not None
    assert caught.value.span.start == 3


def test_triggers_of_a_stage_run_in_its_children_once() -> None:
    graph = graph_of("FROM bare AS a\nONBUILD RUN triggered\nONBUILD ENV T=1\nFROM a AS b\nRUN b\nFROM b\nRUN c")
    names = [step.name.partition("] ")[2] for step in steps(graph, RunCommand)]
    assert names == ["RUN triggered", "RUN b", "RUN c"]
    assert graph.config.on_build == ()
    assert graph.config.env_map()["T"] == "1"
    assert "ONBUILD" not in " ".join(created_by(graph))
