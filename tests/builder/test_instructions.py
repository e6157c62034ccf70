"""builder/dockerfile/{interpret,instructions,expand,mounts}.py: what instructions mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.arguments import parse_duration_ns, suggest
from builder.dockerfile.expand import Environment, arg_default, expanded, parse_ports, run_mounts
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    Onbuild,
    Run,
    Script,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.interpret import instructions, interpret_trigger
from builder.dockerfile.mounts import (
    BindMount,
    CacheMount,
    Mount,
    SecretMount,
    SshMount,
    TmpfsMount,
    mount_target,
    parse_mount,
)
from builder.dockerfile.parse import parse
from builder.dockerfile.words import Usage
from image.errors import DockerfileError
from image.span import Span

SHELL = ("/bin/sh", "-c")
ENV = {"A": "1", "B": "two words", "D": "/dir", "PORTS": "80 443/udp"}


def one(text: str) -> Instruction:
    """The last instruction of a Dockerfile."""
    return instructions(parse(text.encode(), "Dockerfile"))[-1]


def expand_one(text: str, env: dict[str, str] | None = None) -> Any:
    return expanded(one(text), Environment(ENV if env is None else env))


@pytest.mark.parametrize(
    ("text", "args", "script"),
    [
        ("RUN echo $A", (*SHELL, "echo $A"), None),
        ('RUN ["a", "$A"]', ("a", "$A"), None),
        ("RUN <<E\nset -e\n\techo\nE", (*SHELL, "set -e\n\techo\n"), None),
        ("RUN <<-E\n\tset -e\n\t\techo\nE", (*SHELL, "set -e\necho\n"), None),
        ("RUN <<E\nE", (*SHELL, ""), None),
        ("RUN <<E\n#!/bin/x\nbody\nE", ("/dev/pipes/E",), Script("E", b"#!/bin/x\nbody\n")),
        ("RUN <<-'run.py'\n\t#!/bin/x\n\trun.py", ("/dev/pipes/run.py",), Script("run.py", b"#!/bin/x\n")),
        ("RUN <<E cat\na\nE", (*SHELL, "<<E cat\na\nE"), None),
        ("RUN cat <<-A <<'B'\n\t1\n\tA\n2\nB", (*SHELL, "cat <<-A <<'B'\n\t1\nA\n2\nB"), None),
        ("RUN 3<<E\nx\nE", (*SHELL, "x\n"), None),
    ],
)
def test_what_a_run_starts(text: str, args: tuple[str, ...], script: Script | None) -> None:
    run = one(text)
    assert isinstance(run, Run)
    assert run.process(SHELL) == (args, script)


def test_script_bytes_survive() -> None:
    run = instructions(parse(b"RUN <<E\n#!x\n\xff\nE", "f"))[0]
    assert isinstance(run, Run)
    assert run.process(SHELL)[1] == Script("E", b"#!x\n\xff\n")


def test_expansion_replaces_variables_everywhere_it_should() -> None:
    origin = expand_one("FROM --platform=$A/x img:$A AS n")
    assert isinstance(origin, From)
    assert (origin.image, origin.platform, origin.name) == ("img:1", "1/x", "n")
    copy = expand_one("COPY --from=x --chown=$A:$B --chmod=$A --exclude=$A $A b$A $D/")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination) == (("1", "b1"), "/dir/")
    assert (copy.chown, copy.chmod, copy.from_, copy.exclude) == ("1:two words", "1", "x", ("$A",))
    add = expand_one("ADD --checksum=sha256:$A https://x/$A .")
    assert isinstance(add, Add)
    assert (add.checksum, add.sources) == ("sha256:1", ("https://x/1",))
    env = expand_one("ENV A=new C=$A k$A='$A' e=$U")
    assert isinstance(env, Env)
    assert env.pairs == (("A", "new"), ("C", "1"), ("k1", "$A"), ("e", ""))
    label = expand_one('LABEL a.$A="$B"')
    assert isinstance(label, Label)
    assert label.pairs == (("a.1", "two words"),)
    assert isinstance(workdir := expand_one('WORKDIR "$D/a b"'), Workdir)
    assert workdir.path == "/dir/a b"
    assert isinstance(user := expand_one("USER $A:$A"), User)
    assert user.user == "1:1"
    assert isinstance(volume := expand_one('VOLUME ["$D", "x"]'), Volume)
    assert volume.paths == ("/dir", "x")
    assert isinstance(expose := expand_one("EXPOSE $PORTS 53/UDP 8000-8002"), Expose)
    assert expose.ports == ("80/tcp", "443/udp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")


@pytest.mark.parametrize(
    "text",
    ["RUN $A", "CMD $A", 'ENTRYPOINT ["$A"]', 'SHELL ["$A"]', "HEALTHCHECK CMD $A", "ONBUILD RUN $A", "ARG x=$A"],
)
def test_text_that_is_not_the_builders_to_expand(text: str) -> None:
    assert expand_one(text) == one(text)


def test_heredoc_files_expand_unless_quoted() -> None:
    copy = expand_one('COPY <<a <<\'b\' <<-"c" /x/\n$A \\$A "q"\na\n$A\nb\n\t$A\n\tc\n')
    assert [(file.name, file.content) for file in copy.inline] == [("a", b'1 $A "q"\n'), ("b", b"$A\n"), ("c", b"$A\n")]
    assert expanded(copy, Environment({"A": "twice"})) == copy


def test_an_overridden_default_is_never_evaluated() -> None:
    arg = one("ARG a=1 b=${Y:?boom} c")
    assert isinstance(arg, Arg)
    assert expanded(arg, Environment({})) == arg
    assert arg.args[2] == ("c", None)
    with pytest.raises(DockerfileError, match="Y: boom") as caught:
        arg_default(arg, "${Y:?boom}", Environment({}))
    assert caught.value.span == Span("Dockerfile", 1, 1)


def test_usage_collects_over_an_instruction() -> None:
    usage = Usage()
    expanded(one("COPY $A $U /$V"), Environment(ENV, usage=usage))
    assert (usage.used, usage.unset) == ({"A"}, {"U", "V"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("FROM a\nWORKDIR ${x:?no}", "x: no"),
        ("FROM a\nUSER 'x", "single-quote"),
        ("FROM a\nEXPOSE 80/icmp", "invalid proto: icmp"),
        ("FROM a\nEXPOSE $NOTHING/udp", "no port specified"),
        ("FROM a\nEXPOSE 65536", "invalid containerPort: 65536"),
        ("FROM a\nEXPOSE 9-8", "invalid containerPort: 9-8"),
        ("FROM a\nEXPOSE x", "invalid containerPort: x"),
        ("FROM a\nEXPOSE 1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("FROM a\nEXPOSE 80-81:90-95", "invalid ranges specified for container and host Ports: 90-95 and 80-81"),
        ("FROM a\nSTOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
        ("FROM a\nSTOPSIGNAL 0", "invalid signal: 0"),
        ("FROM a\nVOLUME $U", "VOLUME specified can not be an empty string"),
    ],
)
def test_errors_of_expansion_are_at_the_instruction(text: str, problem: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand_one(text)
    assert problem in str(caught.value)
    assert caught.value.span == Span("Dockerfile", 2, 2)


@pytest.mark.parametrize("signal", ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-14", "sigusr1"])
def test_signals(signal: str) -> None:
    assert isinstance(stop := expand_one(f"STOPSIGNAL {signal}"), Stopsignal)
    assert stop.signal == signal


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ("0", ["0/tcp"]), ("80", ["80/tcp"]), ("80/", ["80/tcp"]), ("80/SCTP", ["80/sctp"]), ("65535", ["65535/tcp"]),
        ("80:90", ["90/tcp"]), ("127.0.0.1:80:90/udp", ["90/udp"]), ("[::1]:80:90", ["90/tcp"]), (":90", ["90/tcp"]),
        ("80-82:90", ["90/tcp"]), ("80-81:90-91", ["90/tcp", "91/tcp"]),
    ],
)  # fmt: skip
def test_ports(spec: str, ports: list[str]) -> None:
    assert list(parse_ports(spec)) == ports


def test_onbuild_keeps_text_and_meaning() -> None:
    onbuild = one("  onbuild   ADD --link <<E  /x\nbody\nE\n")
    assert isinstance(onbuild, Onbuild)
    assert onbuild.expression == "ADD --link <<E  /x\nbody\nE"
    assert isinstance(onbuild.trigger, Add)
    span = Span("Dockerfile", 7, 7)
    again = interpret_trigger(onbuild.expression, span)
    assert isinstance(again, Add)
    assert (again.inline, again.link, again.span) == (onbuild.trigger.inline, True, span)


@pytest.mark.parametrize("expression", ["", "FROM x", "ONBUILD RUN x", "RUN a\nRUN b", "NOPE", "COPY a", "ENV 'x"])
def test_triggers_of_hostile_images(expression: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        interpret_trigger(expression, Span("Dockerfile", 3, 3))
    assert caught.value.span == Span("Dockerfile", 3, 3)


def mount(text: str, **env: str) -> Mount:
    return parse_mount(text, Environment(env).word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", BindMount("/x")),
        ("type=bind,dst=x,src=/a,from=b,rw", BindMount("x", "/a", "b", read_only=False)),
        ("destination=/x,readwrite=true", BindMount("/x", read_only=False)),
        ("target=/x,ro=false", BindMount("/x", read_only=False)),
        ("TYPE=Cache,target=/c/../d/", CacheMount("/c/../d/", "/d")),
        ("type=cache,target=/c,id=i,sharing=LOCKED,mode=0700,uid=1,gid=2,ro",
         CacheMount("/c", "i", "locked", mode=0o700, uid=1, gid=2, read_only=True)),
        ("type=cache,target=c,from=base,source=/s", CacheMount("c", "c", from_="base", source="/s")),
        ("type=tmpfs,target=/t", TmpfsMount("/t")),
        ("type=tmpfs,target=/t,size=1.5g", TmpfsMount("/t", 3 << 29)),
        ("type=tmpfs,target=/t,size=64 KiB", TmpfsMount("/t", 65536)),
        ("type=secret,id=s", SecretMount("s", "/run/secrets/s")),
        ("type=secret,src=a/b", SecretMount("a/b", "/run/secrets/b")),
        ("type=secret,target=/etc/key,required", SecretMount("key", "/etc/key", required=True)),
        ("type=secret,id=s,env=E", SecretMount("s", "", "E")),
        ("type=secret,id=s,env=E,target=/t,mode=0440,uid=7,gid=8", SecretMount("s", "/t", "E", False, 0o440, 7, 8)),
        ("type=ssh", SshMount()),
        ("type=ssh,id=k,target=/s,required=true,mode=0666", SshMount("k", "/s", True, 0o666)),
        ('type=bind,"target=/a,b"', BindMount("/a,b")),
        ("type=cache,target=$T,id=${I:-x},sharing=$S", CacheMount("/t", "x", "private")),
    ],
)  # fmt: skip
def test_mounts(text: str, expected: Mount) -> None:
    assert mount(text, T="/t", S="private") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type=vol", 'unsupported mount type "vol"'),
        ("type=cach", 'unsupported mount type "cach" (did you mean cache?)'),
        ("type=cache,sharing=x", 'unsupported sharing value "x"'),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("", "failed to parse csv mounts: EOF"),
        ("tagret=/x", "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
        ("type=tmpfs,size=1x", "invalid value for size: 1x"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("type=cache,gid=4294967296", "invalid value 4294967296 for gid"),
        ("uid=1", 'uid not allowed for "bind" type mounts'),
        ("type=tmpfs,mode=0700", 'mode not allowed for "tmpfs" type mounts'),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=locked", "secret mount should not define sharing"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("sharing=locked", "invalid cache sharing set for bind mount"),
        ("env=X", "unexpected key 'env' for mount type 'bind'"),
        ('"target=/x', "failed to parse csv mounts"),
    ],
)
def test_bad_mounts(text: str, problem: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        mount(text)
    assert problem in str(caught.value)


def test_mounts_are_parsed_when_variables_are_known() -> None:
    run = one("FROM a\nRUN --mount=type=$T,target=/x --mount=type=tmpfs,target=/y true")
    assert isinstance(run, Run)
    assert run_mounts(run, Environment({"T": "cache"})) == (CacheMount("/x", "/x"), TmpfsMount("/y"))
    with pytest.raises(DockerfileError, match="unsupported mount type") as caught:
        run_mounts(run, Environment({"T": "?"}))
    assert caught.value.span == Span("Dockerfile", 2, 2)


@pytest.mark.parametrize(("target", "expected"), [("x", "/w/x"), ("/x/", "/x"), ("../../../y", "/y"), ("//a", "/a")])
def test_mount_targets(target: str, expected: str) -> None:
    assert mount_target(target, "/w") == expected


@pytest.mark.parametrize("target", ["/", "..", "/a/.."])
def test_a_mount_can_not_cover_the_root(target: str) -> None:
    with pytest.raises(DockerfileError, match='invalid mount target "/"'):
        mount_target(target, "/w")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1s", 10**9), ("1h1m1s", 3661 * 10**9), ("1.5ms", 1500000), ("-2us", -2000), ("+3ns", 3), (".5s", 5 * 10**8)],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize(
    ("word", "expected"), [("frm", "from"), ("from", ""), ("xyz", ""), ("chwon", "chown"), ("formm", "from")]
)
def test_suggestions(word: str, expected: str) -> None:
    assert suggest(word, ["from", "chown", "chmod"]) == expected


LINES = st.sampled_from(
    ["FROM a", "FROM $x AS b", "ENV a=$x", "ENV $x", "ARG a=$x", "COPY $x $y", "COPY <<E /x\n$x ${\nE", "EXPOSE $x",
     "WORKDIR ${x%$y}", "RUN --mount=type=$x,target=$y true", "RUN --mount=$x true", "VOLUME $x", "STOPSIGNAL $x",
     'LABEL "$x"=$y', "ADD --chown=$x $y /", "USER ${x:?$y}"]
)  # fmt: skip


@given(st.lists(LINES, min_size=1, max_size=5), st.text(max_size=12), st.text("/0-9:=,\"'$}", max_size=6))
def test_no_environment_gives_anything_but_an_instruction_or_a_dockerfile_error(
    lines: list[str], x: str, y: str
) -> None:
    env = Environment({"x": x, "y": y})
    try:
        parsed = instructions(parse("\n".join(lines).encode(), "f"))
    except DockerfileError:
        return
    for instruction in parsed:
        try:
            expanded(instruction, env)
            if isinstance(instruction, Run):
                run_mounts(instruction, env)
        except DockerfileError as error:
            located = error.span
        else:
            located = instruction.span
        assert located == instruction.span
