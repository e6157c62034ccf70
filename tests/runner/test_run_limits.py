"""Limits, capabilities, devices and filters of ``tierce run``, tried from inside."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runner.containers.limits import Limits, parse_ulimit, resources
from runner.runtime.privileges import Cgroups, probe
from runner.runtime.spec import Rlimit
from tests.support.boxes import Box
from tests.support.cli import Tierce

root = pytest.mark.root
RUN = ("run", "--rm", "--network", "none")


def group_file(controller: str, v1: str, v2: str) -> str:
    """Where a container finds a file of its own control group; skips without the controller."""
    groups: Cgroups = probe().cgroups
    if groups.layout == "v2":
        return f"/sys/fs/cgroup/{v2}"
    if controller not in groups.v1:
        pytest.skip(f"needs the cgroup controller {controller}")
    return f"/sys/fs/cgroup/{controller}/{v1}"


@root
@pytest.mark.parametrize(
    ("flags", "controller", "v1", "v2", "value"),
    [
        (("--memory", "64m"), "memory", "memory.limit_in_bytes", "memory.max", "67108864"),
        (("--memory", "64m", "--memory-reservation", "32m"), "memory", "memory.soft_limit_in_bytes", "memory.low", "33554432"),
        (("--memory-swappiness", "7"), "memory", "memory.swappiness", "", "7"),
        (("--cpu-shares", "512"), "cpu", "cpu.shares", "", "512"),
        (("--cpus", "0.5"), "cpu", "cpu.cfs_quota_us", "", "50000"),
        (("--cpu-period", "50000", "--cpu-quota", "10000"), "cpu", "cpu.cfs_period_us", "", "50000"),
        (("--cpuset-cpus", "0"), "cpuset", "cpuset.cpus", "cpuset.cpus", "0"),
        (("--pids-limit", "20"), "pids", "pids.max", "pids.max", "20"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_limits_reach_the_kernel(
    flags: tuple[str, ...], controller: str, v1: str, v2: str, value: str, tierce_with_busybox: Tierce
) -> None:
    path = group_file(controller, v1, v2)
    if path.endswith("/"):
        pytest.skip("cgroup v2 says it in another form")
    assert tierce_with_busybox(*RUN, *flags, "busybox", "cat", path).stdout == f"{value}\n"


@root
def test_throttle_of_a_disk(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    path = group_file("blkio", "blkio.throttle.write_bps_device", "io.max")
    disk = next((f"/dev/{name}" for name in sorted(os.listdir("/sys/block")) if os.path.exists(f"/dev/{name}")), None)
    if disk is None:
        pytest.skip("needs a block device")
    said = tierce_with_busybox(*RUN, "--device-write-bps", f"{disk}:1m", "busybox", "cat", path).stdout
    assert "1048576" in said
    refused = tierce_with_busybox.attempt(*RUN, "--device-write-bps", f"{tmp_path}:1m", "busybox", "true")
    assert (refused.code, "not a block device" in refused.stderr) == (125, True)


@root
def test_too_much_memory_is_an_oom_kill(box: Box) -> None:
    group_file("memory", "memory.limit_in_bytes", "memory.max")
    spec = box.spec("true")
    limited = replace(
        spec,
        resources=replace(spec.resources, memory_limit=8 << 20, memory_swap=8 << 20),
        process=replace(spec.process, args=("tail", "-c", "100m", "/dev/zero")),
    )
    with box.started(limited) as container:
        assert container.wait() == 137
        assert container.oom_killed
    with box.started(replace(limited, process=replace(spec.process, args=("true",)))) as container:
        assert container.wait() == 0
        assert not container.oom_killed


@root
def test_a_fork_bomb_stays_inside_its_limit(tierce_with_busybox: Tierce) -> None:
    script = "bomb() { bomb | bomb & }; bomb; sleep 0.5; echo alive"
    path = group_file("pids", "pids.current", "pids.current")
    with tierce_with_busybox.start(
        *RUN, "--pids-limit", "30", "busybox", "sh", "-c", f"{script}; cat {path}; exit 3"
    ) as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode in (0, 2, 3, 137), out  # the shell itself may be the one that cannot fork
    for line in out.splitlines():
        assert line == "alive" or int(line) <= 30


@root
def test_a_seccomp_profile(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"name": "sethostname", "action": "SCMP_ACT_ERRNO"},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
        ],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    flags = ("--security-opt", f"seccomp={tmp_path}/profile.json")
    script = "mkdir /x 2>&1; rmdir /tmp/none 2>&1; grep Seccomp: /proc/self/status"
    said = tierce_with_busybox(*RUN, *flags, "busybox", "sh", "-c", script).stdout
    assert said.splitlines()[0].endswith("Permission denied")
    assert said.splitlines()[1].endswith("No such file or directory")
    assert said.splitlines()[2].split() == ["Seccomp:", "2"]
    (tmp_path / "profile.json").write_text("{")
    refused = tierce_with_busybox.attempt(*RUN, *flags, "busybox", "true")
    assert (refused.code, "cannot read the seccomp profile" in refused.stderr) == (125, True)


@root
def test_devices(tierce_with_busybox: Tierce) -> None:
    """A node that anyone may make opens only by a rule, and only so far."""
    done = tierce_with_busybox.attempt(*RUN, "busybox", "sh", "-c", "mknod /tmp/k c 10 237; : < /tmp/k")
    assert "Operation not permitted" in done.stderr
    given = ("--device-cgroup-rule", "c 10:237 r")
    tierce_with_busybox(*RUN, *given, "busybox", "sh", "-c", "mknod /tmp/k c 10 237; : < /tmp/k")
    done = tierce_with_busybox.attempt(*RUN, *given, "busybox", "sh", "-c", "mknod /tmp/k c 10 237; : > /tmp/k")
    assert "Operation not permitted" in done.stderr
    tierce_with_busybox(*RUN, "--device", "/dev/loop-control:/dev/lc:rw", "busybox", "sh", "-c", ": <> /dev/lc")
    listed = tierce_with_busybox(
        *RUN, "--privileged", "busybox", "sh", "-c", "test -c /dev/loop-control; echo $?"
    ).stdout
    assert listed == "0\n"


@root
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--user", "daemon"), "uid=1(daemon) gid=1(daemon) groups=1(daemon)"),
        (("--user", "1000:5", "--group-add", "29", "--group-add", "daemon"), "uid=1000 gid=5"),
        (("--user", "1000"), "uid=1000 gid=0(root) groups=0(root)"),
    ],
    ids=["name", "numbers and groups", "number alone"],
)
def test_users(flags: tuple[str, ...], said: str, tierce_with_busybox: Tierce) -> None:
    assert tierce_with_busybox(*RUN, *flags, "busybox", "id").stdout.startswith(said)


@root
def test_cgroup_parent(tierce_with_busybox: Tierce) -> None:
    """The group lies where it was asked for, and the parent stays, as it is the user's."""
    groups = probe().cgroups
    mount = groups.v2 if groups.layout == "v2" else groups.v1["devices"]
    parent = f"{mount}/tierce-test-parent"
    os.mkdir(parent)
    try:
        with tierce_with_busybox.start(
            *RUN, "--cgroup-parent", "/tierce-test-parent", "-i", "busybox", "sh", "-c", "echo ready; read x"
        ) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
            assert [entry for entry in os.listdir(parent) if os.path.isdir(f"{parent}/{entry}")]
            run.communicate("x\n")
        assert not [entry for entry in os.listdir(parent) if os.path.isdir(f"{parent}/{entry}")]
        with tierce_with_busybox.start(*RUN, "--cgroup-parent", "/tierce-test-parent", "busybox", "sleep", "99") as run:
            while not [entry for entry in os.listdir(parent) if os.path.isdir(f"{parent}/{entry}")]:
                time.sleep(0.02)
            time.sleep(0.2)
            run.kill()
        tierce_with_busybox(*RUN, "busybox", "true")  # sweeps what was left
        assert not [entry for entry in os.listdir(parent) if os.path.isdir(f"{parent}/{entry}")]
    finally:
        os.rmdir(parent)


def lives(pid: str) -> bool:
    """Whether it is a process that still does something: a zombie waits for us, who adopt orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@root
def test_pid_namespace_of_the_host(tierce_with_busybox: Tierce) -> None:
    """Its processes see ours; and what they leave running ends with the container all the same."""
    script = f"test -d /proc/{os.getpid()} && sleep 4321 & echo $!; sleep 0.2"
    said = tierce_with_busybox(*RUN, "--pid", "host", "busybox", "sh", "-c", script).stdout
    assert not lives(said.strip())
    said = tierce_with_busybox(*RUN, "--pid", "host", "--privileged", "busybox", "sh", "-c", script).stdout
    assert not lives(said.strip())


@root
def test_a_full_tmpfs_is_the_containers_own_trouble(tierce_with_busybox: Tierce) -> None:
    done = tierce_with_busybox.attempt(
        *RUN, "--tmpfs", "/t:size=64k", "busybox", "sh", "-c", "head -c 1m /dev/zero > /t/x || exit 4"
    )
    assert done.code == 4


# --- decided without a container ------------------------------------------------------------


def test_ulimits() -> None:
    assert parse_ulimit("nofile=10:20") == Rlimit("RLIMIT_NOFILE", 10, 20, required=True)
    assert parse_ulimit("core=-1") == Rlimit("RLIMIT_CORE", 2**64 - 1, 2**64 - 1, required=True)


def test_readings() -> None:
    plain = resources(Limits(memory=64 << 20))
    assert (plain.memory_limit, plain.memory_swap) == (64 << 20, 128 << 20)
    assert resources(Limits(memory=64 << 20, memory_swap=-1)).memory_swap == -1
    assert resources(Limits(pids_limit=0)).pids_limit is None
