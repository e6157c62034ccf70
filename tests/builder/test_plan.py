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
from builder.plan import Planned, Source, needed, plan, unconsumed
from builder.stage_plan import PlanOptions
from image import media_types
from image.config import DEFAULT_PATH, ContainerConfig, Healthcheck, ImageConfig
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
    "copies": ContainerConfig(on_build=("COPY --from=assets /a /a", "COPY --from=base /b /b")),
    "asks": ContainerConfig(on_build=("ARG ASKED",)),
    "healthy": ContainerConfig(healthcheck=Healthcheck(("CMD", "ask"), 5)),
}


def resolve(reference: Reference, platform: Platform) -> BaseImage:
    if reference.familiar_repository not in BASES:
        raise ReferenceNotFound(f"image {reference.familiar} not found")
    config = ImageConfig(platform, BASES[reference.familiar_repository])
    manifest = Descriptor.of(str(reference).encode(), media_types.OCI_MANIFEST)
    return BaseImage(reference, manifest, config, ())


def source_of(text: str) -> Source:
    document = parse(text.encode(), "Dockerfile")
    return Source(split_stages(instructions(document)), document.escape)


def planned(text: str, options: PlanOptions = OPTIONS) -> Planned:
    return plan(source_of(text), options, resolve)


def graph_of(text: str, options: PlanOptions = OPTIONS) -> Graph:
    return planned(text, options).graph


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
        ("FROM bare AS a\nENV X=env\nARG X=arg\nFROM a\nRUN a", {}, "env"),
        ("FROM bare\nARG TARGETARCH\nENV X=$TARGETARCH\nRUN a", {}, "amd64"),
        ("FROM bare\nENV X=$TARGETARCH\nRUN a", {}, ""),
        ("FROM bare\nARG TARGETARCH=own\nENV X=$TARGETARCH\nRUN a", {}, "own"),
        ("FROM bare\nARG TARGETARCH=own\nENV X=$TARGETARCH\nRUN a", {"TARGETARCH": "cli"}, "cli"),
        ("FROM bare\nARG TARGETARCH\nENV X=$TARGETARCH\nRUN a", {"TARGETARCH": "cli"}, "cli"),
        ("ARG Y=$TARGETOS\nFROM bare\nARG Y\nENV X=$Y\nRUN a", {}, "linux"),
        ("ARG Y=1 X=$Y\nFROM bare\nARG X\nRUN a", {}, "1"),
        ("ARG X=${Y:?no}\nFROM bare\nARG X\nRUN a", {"X": "cli"}, "cli"),
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
    assert step.operation.unkeyed_env == ("HTTP_PROXY=http://p", "http_proxy=http://p")
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


def noticed(text: str, options: PlanOptions = OPTIONS) -> list[str]:
    return [str(found.warning) for found in planned(text, options).noticed]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM bare\nENV A=$NONE", ["UndefinedVar: Usage of undefined variable '$NONE' (line 2)"]),
        ("FROM base\nENV A=$FROM_BASE B=$PATH", []),
        ("FROM bare\nARG A\nENV B=$A", []),
        ("FROM bare\nARG A=$NONE", ["UndefinedVar: Usage of undefined variable '$NONE' (line 2)"]),
        ("FROM bare\nARG A=1 B=$A", []),
        ("FROM bare\nENV A=1 B=$A", ["UndefinedVar: Usage of undefined variable '$A' (line 2)"]),
        ("FROM bare\nENV NAME=1\nWORKDIR /$NAM", [
            "UndefinedVar: Usage of undefined variable '$NAM' (did you mean $NAME?) (line 3)"]),
        ("FROM bare\nENV A=${NONE:-x}", ["UndefinedVar: Usage of undefined variable '$NONE' (line 2)"]),
        ("FROM bare\nRUN echo $NONE\nCMD $NONE", []),
        ("FROM bare\nRUN --mount=type=cache,target=/a$NONE x", [
            "UndefinedVar: Usage of undefined variable '$NONE' (line 2)"]),
        ("FROM bare\nCOPY <<e /x\n$NONE\ne", ["UndefinedVar: Usage of undefined variable '$NONE' (line 2)"]),
        ("FROM bare\nCOPY <<'e' /x\n$NONE\ne", []),
        ("ARG G=1\nFROM bare\nUSER $G", ["UndefinedVar: Usage of undefined variable '$G' (line 3)"]),
        ("FROM bare AS a\nENV A=1\nFROM a\nLABEL l=$A", []),
        ("FROM bare AS a\nUSER $NONE\nFROM bare", []),
        ("FROM bare\nUSER $TARGETARCH", ["UndefinedVar: Usage of undefined variable '$TARGETARCH' (line 2)"]),
    ],
)  # fmt: skip
def test_undefined_variables_are_noticed(text: str, expected: list[str]) -> None:
    assert noticed(text) == expected


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
    "variable", ["HTTP_PROXY", "https_proxy", "FTP_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "Http_Proxy"]
)
def test_every_proxy_argument_in_both_spellings(variable: str) -> None:
    operation = steps(graph_of("FROM base\nRUN a", with_args(**{variable: "p"})), RunCommand)[0].operation
    assert isinstance(operation, RunCommand)
    assert operation.unkeyed_env == (f"{variable.upper()}=p", f"{variable.lower()}=p")


def test_a_declared_proxy_is_part_of_the_step() -> None:
    graph = graph_of("FROM base\nARG http_proxy\nRUN a", with_args(http_proxy="p"))
    operation = steps(graph, RunCommand)[-1].operation
    assert isinstance(operation, RunCommand)
    assert run_env(graph)["http_proxy"] == "p"
    assert operation.unkeyed_env == ("HTTP_PROXY=p",)
    assert "RUN |1 http_proxy=p /bin/sh -c a # buildkit" in created_by(graph)


def test_the_hostname_of_the_sandbox_is_an_argument() -> None:
    named = steps(graph_of("FROM base\nRUN a", with_args(BUILDKIT_SANDBOX_HOSTNAME="h")), RunCommand)[0]
    assert isinstance(named.operation, RunCommand)
    assert named.operation.hostname == "h"
    assert named.id != steps(graph_of("FROM base\nRUN a"), RunCommand)[0].id


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


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("FROM bare\nEXPOSE 80-82/UDP 90", "exposed_ports", ("80/udp", "81/udp", "82/udp", "90/tcp")),
        ('FROM bare\nENV P="1 2/udp"\nEXPOSE $P', "exposed_ports", ("1/tcp", "2/udp")),
        ("FROM bare\nEXPOSE 127.0.0.1:8080:80", "exposed_ports", ("80/tcp",)),
        ("FROM base\nUSER a:b", "user", "a:b"),
        ("FROM base\nENV U=7\nUSER $U:$U", "user", "7:7"),
        ("FROM base", "user", "app"),
        ('FROM bare\nSHELL ["s", "-x"]\nCMD a', "cmd", ("s", "-x", "a")),
        ('FROM bare\nSHELL ["s", "-x"]\nENTRYPOINT a', "entrypoint", ("s", "-x", "a")),
        ('FROM bare AS a\nSHELL ["s"]\nFROM a\nCMD a', "cmd", ("s", "a")),
        ("FROM bare\nSTOPSIGNAL 9", "stop_signal", "9"),
        ("FROM bare\nENV S=QUIT\nSTOPSIGNAL SIG$S", "stop_signal", "SIGQUIT"),
        ('FROM bare\nVOLUME ["/a", "/b"]\nVOLUME /a /c', "volumes", ("/a", "/b", "/c")),
        ("FROM healthy", "healthcheck", Healthcheck(("CMD", "ask"), 5)),
        ("FROM healthy\nHEALTHCHECK NONE", "healthcheck", Healthcheck(("NONE",))),
        ("FROM healthy\nHEALTHCHECK --interval=1s NONE", "healthcheck", Healthcheck(("NONE",))),
        ("FROM bare\nHEALTHCHECK --interval=0 --retries=0 CMD x", "healthcheck", Healthcheck(("CMD-SHELL", "x"))),
        ('FROM bare\nCMD ["a"] b', "cmd", ("/bin/sh", "-c", '["a"] b')),
        ("FROM healthy\nHEALTHCHECK --retries=2 CMD x", "healthcheck", Healthcheck(("CMD-SHELL", "x"), retries=2)),
        ('FROM healthy\nHEALTHCHECK CMD ["a", "b"]', "healthcheck", Healthcheck(("CMD", "a", "b"))),
        ("FROM bare\nLABEL a b c", "labels", {"a": "b c"}),
        ('FROM bare\nENV X=1\nLABEL "a.$X"=b \'c d\'="e $X"', "labels", {"a.1": "b", "c d": "e 1"}),
        ("FROM scratch", "working_dir", "/"),
        ("FROM scratch", "env", (f"PATH={DEFAULT_PATH}",)),
    ],
)  # fmt: skip
def test_what_instructions_configure(text: str, field: str, expected: object) -> None:
    assert getattr(graph_of(text).config, field) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEALTHCHECK --interval=1m30s CMD x",
         "HEALTHCHECK {Test:[CMD-SHELL x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"),
        ('SHELL ["/bin/sh", "-e"]', "SHELL [/bin/sh -e]"),
        ("ENTRYPOINT []", "ENTRYPOINT []"),
        ("ARG A=1 B=$A C", "ARG A=1 B=1 C"),
        ("ARG GLOBAL", "ARG GLOBAL=g"),
        ("WORKDIR /", "WORKDIR /"),
        ("COPY <<one <<two /d/\n1\none\n2\ntwo", "COPY <<one <<two /d/ # buildkit"),
        ("COPY --parents --chmod=1 --chown=2 a b /d/", "COPY --parents --chown=2 --chmod=1 a b /d/ # buildkit"),
        ("COPY --from=base --link a /d", "COPY a /d # buildkit"),
        ("ENV A='b  c' D=", "ENV A=b  c D="),
        ("RUN <<e\none\ntwo\ne", "RUN /bin/sh -c one\ntwo\n # buildkit"),
    ],
)  # fmt: skip
def test_history_of_one_instruction(text: str, expected: str) -> None:
    assert created_by(graph_of(f"ARG GLOBAL=g\nFROM bare\n{text}"))[-1] == expected


def test_history_has_the_latest_value_of_an_argument_once() -> None:
    graph = graph_of("FROM bare\nARG A=1\nARG B\nARG A=2\nENV B=env\nRUN x")
    assert created_by(graph)[-1] == "RUN |2 A=2 B=env /bin/sh -c x # buildkit"


def test_quoted_arguments_of_one_line_are_imported() -> None:
    text = 'ARG A="a b" B=\'c $A\' C="$A d"\nFROM bare\nARG A B C\nRUN x'
    env = run_env(graph_of(text))
    assert (env["A"], env["B"], env["C"]) == ("a b", "c $A", "a b d")
