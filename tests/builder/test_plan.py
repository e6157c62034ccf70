"""Planning: what a Dockerfile comes to, without building anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.stages import split_stages
from builder.draw import draw
from builder.graph import BaseImage, CopyFiles, FromImage, Graph, MakeDirectory, RunCommand, Step, inputs_first
from builder.plan import Source, needed, plan
from builder.stage_plan import PlanOptions
from image import media_types
from image.config import DEFAULT_PATH, ContainerConfig, ImageConfig
from image.descriptor import Descriptor
from image.errors import DockerfileError, ReferenceNotFound
from image.platform import Platform
from image.reference import Reference

HERE = Platform("linux", "amd64")
OPTIONS = PlanOptions(platform=HERE, build_platform=HERE)
BASES: Mapping[str, ContainerConfig] = {
    "base": ContainerConfig(env=("PATH=/bin", "FROM_BASE=1"), cmd=("sh",), working_dir="/home", user="app"),
    "bare": ContainerConfig(),
    "trigger": ContainerConfig(on_build=("COPY . /src", "RUN make")),
}


def resolve(reference: Reference, platform: Platform) -> BaseImage:
    if reference.familiar_repository not in BASES:
        raise ReferenceNotFound(f"image {reference.familiar} not found")
    config = ImageConfig(platform, BASES[reference.familiar_repository])
    manifest = Descriptor.of(str(reference).encode(), media_types.OCI_MANIFEST)
    return BaseImage(reference, manifest, config, ())


def graph_of(text: str, options: PlanOptions = OPTIONS) -> Graph:
    document = parse(text.encode(), "Dockerfile")
    return plan(Source(split_stages(instructions(document)), document.escape), options, resolve).graph


def with_args(**build_args: str) -> PlanOptions:
    return replace(OPTIONS, build_args=build_args)


def steps(graph: Graph, kind: type) -> list[Step]:
    return [step for step in inputs_first(graph.target) if isinstance(step.operation, kind)]


def run_env(graph: Graph) -> dict[str, str]:
    """The environment of the last RUN."""
    operation = steps(graph, RunCommand)[-1].operation
    assert isinstance(operation, RunCommand)
    return dict(item.split("=", 1) for item in operation.env)


def created_by(graph: Graph) -> list[str]:
    return [entry.created_by for entry in graph.history]


@pytest.mark.parametrize(
    ("text", "build_args", "expected"),
    [
        ("FROM bare\nARG X=1\nRUN a", {}, "1"),
        ("FROM bare\nARG X=1\nRUN a", {"X": "2"}, "2"),
        ("FROM bare\nARG X\nRUN a", {}, None),
        ("FROM bare\nARG X=\nRUN a", {}, ""),
        ("ARG X=global\nFROM bare\nARG X\nRUN a", {}, "global"),
        ("ARG X=global\nFROM bare\nARG X=own\nRUN a", {}, "own"),
        ("ARG X=global\nFROM bare\nARG X=own\nRUN a", {"X": "cli"}, "cli"),
        ("ARG X=global\nFROM bare\nRUN a", {}, None),
        ("FROM bare\nRUN a", {"X": "undeclared"}, None),
        ("FROM bare\nARG X=${Y:?missing}\nRUN a", {"X": "set"}, "set"),
        ("FROM bare\nENV X=env\nARG X=arg\nRUN a", {}, "arg"),
        ("FROM bare\nARG X=arg\nENV X=env\nRUN a", {}, "env"),
        ("FROM bare AS a\nARG X=1\nFROM a\nRUN a", {}, "1"),
        ("FROM bare AS a\nARG X=1\nFROM bare\nRUN a", {}, None),
        ("FROM bare\nARG TARGETARCH\nENV X=$TARGETARCH\nRUN a", {}, "amd64"),
        ("FROM bare\nENV X=$TARGETARCH\nRUN a", {}, ""),
        ("FROM bare\nENV Y=1\nENV Y=2 X=$Y\nRUN a", {}, "1"),
        ("FROM base\nENV X=$FROM_BASE\nRUN a", {}, "1"),
    ],
)  # fmt: skip
def test_scopes_of_arg_and_env(text: str, build_args: dict[str, str], expected: str | None) -> None:
    assert run_env(graph_of(text, with_args(**build_args))).get("X") == expected


def test_an_overridden_arg_stays_out_of_the_configuration() -> None:
    graph = graph_of("FROM bare\nENV X=env\nARG X=arg\nRUN a")
    assert graph.config.env_map() == {"PATH": DEFAULT_PATH, "X": "env"}


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


@pytest.mark.parametrize(
    ("text", "cmd", "entrypoint"),
    [
        ("FROM base", ("sh",), None),
        ('FROM base\nENTRYPOINT ["e"]', None, ("e",)),
        ('FROM base\nCMD ["c"]\nENTRYPOINT ["e"]', ("c",), ("e",)),
        ('FROM base\nENTRYPOINT ["e"]\nCMD ["c"]', ("c",), ("e",)),
        ("FROM base\nCMD c d", ("/bin/sh", "-c", "c d"), None),
        ("FROM base\nENTRYPOINT []", None, None),
    ],
)
def test_cmd_and_entrypoint(text: str, cmd: tuple[str, ...] | None, entrypoint: tuple[str, ...] | None) -> None:
    config = graph_of(text).config
    assert (config.cmd, config.entrypoint) == (cmd, entrypoint)


def test_history_reads_as_dockers() -> None:
    text = (
        "FROM scratch\nARG A=1\nARG B\nENV X=a Y='b c'\nWORKDIR /w\nWORKDIR sub\nCOPY --chown=1 a b /d/\n"
        "RUN make all\nRUN [\"/x\", \"y\"]\nLABEL k=v\nEXPOSE 80 90/udp\nUSER u\nVOLUME /v /w\n"
        'CMD ["a", "b c"]\nSTOPSIGNAL SIGINT\nMAINTAINER me'
    )  # fmt: skip
    graph = graph_of(text, with_args(A="2"))
    assert created_by(graph) == [
        "ARG A=2",
        "ARG B",
        "ENV X=a Y=b c",
        "WORKDIR /w",
        "WORKDIR /w/sub",
        "COPY --chown=1 a b /d/ # buildkit",
        "RUN |2 A=2 B= /bin/sh -c make all # buildkit",
        "RUN |2 A=2 B= /x y # buildkit",
        "LABEL k=v",
        "EXPOSE [80/tcp 90/udp]",
        "USER u",
        "VOLUME [/v /w]",
        'CMD ["a" "b c"]',
        "STOPSIGNAL SIGINT",
        "MAINTAINER me",
    ]
    assert graph.author == "me"
    assert [entry.step is not None for entry in graph.history].count(True) == 5


def test_proxies_reach_run_and_make_no_other_step() -> None:
    plain = graph_of("FROM base\nRUN a")
    proxied = graph_of("FROM base\nRUN a", with_args(http_proxy="http://p"))
    [step] = steps(proxied, RunCommand)
    assert isinstance(step.operation, RunCommand)
    assert step.operation.unkeyed_env == ("http_proxy=http://p",)
    assert step.id == steps(plain, RunCommand)[0].id
    assert "http_proxy" not in " ".join(created_by(proxied))
    declared = graph_of("FROM base\nARG http_proxy\nRUN a", with_args(http_proxy="http://p"))
    assert run_env(declared)["http_proxy"] == "http://p"


def test_triggers_of_a_base_run_first_and_go() -> None:
    graph = graph_of("FROM trigger\nRUN after")
    names = [step.name for step in inputs_first(graph.target)]
    assert names[-3:] == ["[2/4] COPY . /src", "[3/4] RUN make", "[4/4] RUN after"]
    assert graph.config.on_build == ()
    assert graph_of("FROM bare\nONBUILD RUN x").config.on_build == ("RUN x",)


@pytest.mark.parametrize(
    ("workdir", "written", "dest"),
    [
        ("/", "a", "/a"), ("/w", "a", "/w/a"), ("/w", "a/", "/w/a/"), ("/w", ".", "/w/"), ("/w", "./", "/w/"),
        ("/w", "/a", "/a"), ("/w", "../a", "/a"), ("/w", "/", "/"), ("/w", "../../..", "/"), ("/w", "a/.", "/w/a/"),
    ],
)  # fmt: skip
def test_copy_destinations(workdir: str, written: str, dest: str) -> None:
    [step] = steps(graph_of(f"FROM scratch\nWORKDIR {workdir}\nCOPY x {written}"), CopyFiles)
    assert isinstance(step.operation, CopyFiles)
    assert step.operation.dest == dest


def test_workdir_of_the_root_makes_no_layer() -> None:
    graph = graph_of("FROM bare\nWORKDIR /\nWORKDIR /a/")
    assert len(steps(graph, MakeDirectory)) == 1
    assert graph.config.working_dir == "/a/"


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
        ("FROM base\nRUN --mount=type=cache,target=/ x", 2, "invalid mount target"),
        ('FROM base\nENV A="${B:?say B}"', 2, "say B"),
        ("FROM --platform=a/b/c/d base", 1, "invalid platform"),
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
