"""Host names, memory, processors and limits of RUN, seen from inside."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from image.errors import InvalidInput
from runner.containers.options import RunOptions
from runner.runtime.defaults import default_spec
from runner.runtime.spec import Process
from tests.support.cli import Tierce
from tierce.build.step_limits import limited, parse_hosts


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
        ("cat /sys/fs/cgroup/cpuset/cpuset.mems", ("--cpuset-mems", "0"), "0"),
        ("cat /etc/resolv.conf | head -2", ("--dns", "10.1.2.3", "--dns-search", "a.test"), "nameserver 10.1.2.3\nsearch a.test"),
        ("grep CapBnd /proc/self/status", ("--cap-drop", "ALL", "--cap-add", "CHOWN"), "CapBnd: 0000000000000001"),
        ("grep NoNewPrivs /proc/self/status", ("--security-opt", "no-new-privileges"), "NoNewPrivs: 1"),
        ("grep Seccomp: /proc/self/status", ("--security-opt", "seccomp=unconfined"), "Seccomp: 0"),
        ("cat /lent/busybox | wc -c; touch /lent/x 2>&1 | grep -o Read-only", ("-v", "/bin:/lent:ro"), "{size}\nRead-only"),
    ],
    ids=[
        "host", "shm", "ulimit", "hard ulimit", "memory", "quota", "shares", "nodes", "dns", "capabilities",
        "privileges", "filter", "volume",
    ],
)  # fmt: skip
def test_what_a_step_gets(tierce_with_busybox: Tierce, command: str, flags: tuple[str, ...], printed: str) -> None:
    path = re.search(r"/sys/fs/cgroup/\w+", command)
    if path and run(tierce_with_busybox, f"test -d {path[0]} && echo v1 || echo none") != "v1":
        pytest.skip(f"needs the cgroup v1 controller at {path[0]}")
    wanted = printed.format(size=Path("/bin/busybox").stat().st_size)
    assert run(tierce_with_busybox, command, *flags) == wanted


@pytest.mark.root
def test_files_that_are_lent_leave_nothing_in_the_image(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    (tmp_path / "lent").mkdir()
    dockerfile = "FROM busybox\nRUN echo kept > /a/b/f; echo 1 > /made\n"
    build = ("build", "--network=none", "-v", f"{tmp_path}/lent:/a/b", "-o", "type=tar", "-")
    done = subprocess.run(tierce_with_busybox.argv(*build), input=dockerfile.encode(), capture_output=True, check=True,
                          env=tierce_with_busybox.env())  # fmt: skip
    assert (tmp_path / "lent" / "f").read_text() == "kept\n"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = tar.getnames()
    assert "made" in names
    assert not [name for name in names if name == "a" or name.startswith("a/")]


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


@pytest.mark.parametrize("word", ["a", "a:", ":1.2.3.4", "a:b", "a:1.2.3", "=1.2.3.4"])
def test_hosts_that_are_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="add-host"):
        parse_hosts([word])


@pytest.mark.parametrize("word", ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3"])
def test_limits_that_are_refused(tmp_path: Path, word: str) -> None:
    done = Tierce(tmp_path / "root").attempt("build", "--ulimit", word, "-", stdin="FROM scratch\n")
    assert (done.code, "ulimit" in done.stderr) == (1, True), str(done)


def test_groups_of_steps_may_have_one_above_them() -> None:
    spec = limited(
        default_spec(Process(("true",))), RunOptions(cgroup_parent="/above"), insecure=False, container_id="build-1"
    )
    assert spec.cgroups_path == "/above/build-1"
