"""Host names, memory, processors and limits of RUN, seen from inside."""

from __future__ import annotations

import re

import pytest

from image.errors import InvalidInput
from tests.support.cli import Tierce
from tierce.build.step_limits import parse_hosts, parse_ulimits


def run(tierce: Tierce, command: str, *flags: str) -> str:
    """What a RUN printed."""
    dockerfile = f"FROM busybox\nRUN {command}\n"
    result = tierce("build", "--no-cache", "--network", "none", "--progress", "plain", *flags, "-", stdin=dockerfile)
    return "\n".join(re.findall(r"^#\d+ \d+\.\d+ (.*)$", result.stderr, re.MULTILINE))


@pytest.mark.root
@pytest.mark.parametrize(
    ("command", "flags", "printed"),
    [
        ("grep db /etc/hosts", ("--add-host", "db:10.1.2.3"), "10.1.2.3 db"),
        ("df -k /dev/shm | tail -1 | awk '{print $2}'", ("--shm-size", "2m"), "2048"),
        ("ulimit -n", ("--ulimit", "nofile=77:88"), "77"),
        ("ulimit -Hn", ("--ulimit", "nofile=77:88"), "88"),
        ("cat /sys/fs/cgroup/memory/memory.limit_in_bytes", ("-m", "64m"), str(64 << 20)),
        ("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", ("--cpu-quota", "50000"), "50000"),
        ("cat /sys/fs/cgroup/cpu/cpu.shares", ("--cpu-shares", "512"), "512"),
    ],
    ids=["host", "shm", "ulimit", "hard ulimit", "memory", "quota", "shares"],
)
def test_what_a_step_gets(tierce_with_busybox: Tierce, command: str, flags: tuple[str, ...], printed: str) -> None:
    path = re.search(r"/sys/fs/cgroup/\w+", command)
    if path and run(tierce_with_busybox, f"test -d {path[0]} && echo v1 || echo none") != "v1":
        pytest.skip(f"needs the cgroup v1 controller at {path[0]}")
    assert run(tierce_with_busybox, command, *flags) == printed


@pytest.mark.root
def test_the_host_on_the_bridge(tierce_with_busybox: Tierce) -> None:
    dockerfile = "FROM busybox\nRUN grep host.docker.internal /etc/hosts; ip route | grep default\n"
    flags = ("--no-cache", "--progress", "plain", "--add-host", "host.docker.internal:host-gateway")
    printed = tierce_with_busybox("build", *flags, "-", stdin=dockerfile).stderr
    named = re.search(r"(\d+\.\d+\.\d+\.\d+) host\.docker\.internal", printed)
    assert named is not None
    assert f"default via {named[1]} " in printed


@pytest.mark.root
def test_limits_make_no_other_step(tierce_with_busybox: Tierce) -> None:
    build = ("build", "-q", "--network", "none", "-")
    plain = tierce_with_busybox(*build, stdin="FROM busybox\nRUN date > /d\n").stdout
    limited = tierce_with_busybox(
        *build[:-1], "-m", "64m", "--add-host", "a:1.2.3.4", "-", stdin="FROM busybox\nRUN date > /d\n"
    )
    assert limited.stdout == plain


def test_what_is_parsed() -> None:
    assert parse_hosts(["a:1.2.3.4", "b=::1", "c:[::1]", "d:host-gateway"]) == (
        ("a", "1.2.3.4"), ("b", "::1"), ("c", "::1"), ("d", "host-gateway"),
    )  # fmt: skip
    assert parse_ulimits(["nofile=1:2", "core=-1", "nproc=5"]) == (
        ("RLIMIT_NOFILE", 1, 2), ("RLIMIT_CORE", 2**64 - 1, 2**64 - 1), ("RLIMIT_NPROC", 5, 5),
    )  # fmt: skip


@pytest.mark.parametrize("word", ["a", "a:", ":1.2.3.4", "a:b", "a:1.2.3", "=1.2.3.4"])
def test_hosts_that_are_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="add-host"):
        parse_hosts([word])


@pytest.mark.parametrize("word", ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3"])
def test_limits_that_are_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="ulimit"):
        parse_ulimits([word])
