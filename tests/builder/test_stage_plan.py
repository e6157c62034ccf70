"""What the instructions of a stage do to its variables, its configuration and its history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.graph import CopyFiles, MakeDirectory, RunCommand
from image.config import DEFAULT_PATH, Healthcheck
from image.platform import Platform
from tests.support.plans import (
    OPTIONS,
    created_by,
    graph_of,
    noticed,
    run_env,
    steps,
    with_args,
)


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUILDPLATFORM", "linux/amd64"), ("BUILDOS", "linux"), ("BUILDOSVERSION", ""), ("BUILDARCH", "amd64"),
        ("BUILDVARIANT", ""), ("TARGETPLATFORM", "linux/arm/v7"), ("TARGETOS", "linux"), ("TARGETOSVERSION", ""),
        ("TARGETARCH", "arm"), ("TARGETVARIANT", "v7"), ("TARGETSTAGE", "default"),
    ],
)  # fmt: skip
def test_every_predefined_argument(name: str, value: str) -> None:
    """In a FROM without being declared, in a stage once it is; the command line overrides it."""
    options = replace(OPTIONS, platform=Platform("linux", "arm", "v7"))
    in_from, in_stage = f"FROM ba${{{name}:+re}}\nRUN a", f"FROM bare\nARG {name}\nRUN a"
    assert run_env(graph_of(in_stage, options))[name] == value
    assert name not in run_env(graph_of("FROM bare\nRUN a", options))
    if value:
        graph_of(in_from, options)
    overridden = replace(options, build_args={name: "mine"})
    assert run_env(graph_of(in_stage, overridden))[name] == "mine"
    graph_of(in_from, overridden)


def test_an_overridden_arg_stays_out_of_the_configuration() -> None:
    graph = graph_of("FROM bare\nENV X=env\nARG X=arg\nRUN a")
    assert graph.config.env_map() == {"PATH": DEFAULT_PATH, "X": "env"}


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
