"""Limits of an ordinary user's containers, where control groups are handed on: cgroup v2 and systemd.

Skipped elsewhere; ``python -m fixtures.virtual_machine`` makes such a machine anywhere.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.runtime.privileges import probe
from tests.support.ordinary_user import OrdinaryUser, ordinary_user
from tests.support.process import need
from tests.support.waiting import until

pytestmark = pytest.mark.root
RUN = ("run", "--rm", "--network", "none")
READ = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"
SCOPES = "user.slice/user-{0}.slice/user@{0}.service/app.slice/tierce-*.scope"


@pytest.fixture(scope="module")
def user(busybox_archive: Path) -> Iterator[OrdinaryUser]:
    """Whose systemd runs, as after a login."""
    need("newuidmap")
    need("busctl")
    if probe().cgroups.layout != "v2" or not Path("/run/systemd/system").exists():
        pytest.skip("needs systemd on cgroup v2")
    with ordinary_user(ranges=True) as made:
        subprocess.run(["loginctl", "enable-linger", made.name], check=True)
        until(Path(f"/run/user/{made.uid}/bus").exists)
        try:
            made("load", "--input", made.give(busybox_archive))
            yield made
            made("system", "prune", "--all", "--force")
        finally:
            subprocess.run(["loginctl", "disable-linger", made.name], check=True)
            subprocess.run(["systemctl", "stop", f"user@{made.uid}.service"], check=True)


def scopes(user: OrdinaryUser) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(SCOPES.format(user.uid)))


def read_of_group(user: OrdinaryUser, name: str) -> str:
    """A file of the only container's group."""
    (found,) = (path for scope in scopes(user) for path in scope.glob(f"tierce/*/{name}"))
    return found.read_text().strip()


def test_limits_by_the_users_systemd(user: OrdinaryUser) -> None:
    """What was asked for reaches the kernel, and the scope ends with the container."""
    flags = ("--memory", "64m", "--pids-limit", "20", "--cpus", "0.5")
    assert user(*RUN, *flags, "busybox", "sh", "-c", READ).stdout.split() == ["67108864", "20", "50000", "100000"]
    until(lambda: not scopes(user))


def test_limits_in_a_scope_of_ones_own(user: OrdinaryUser) -> None:
    """The command's own group is divided: the command in one part, the container in another."""
    argv = user.argv(*RUN, "--memory", "32m", "busybox", "cat", "/sys/fs/cgroup/memory.max")
    at = argv.index("-i") + 1
    argv[at:at] = [f"XDG_RUNTIME_DIR=/run/user/{user.uid}"]
    at = argv.index("-m") - 1
    argv[at:at] = ["systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=user.home)
    assert (done.stdout, done.stderr) == ("33554432\n", "")


def test_too_much_memory_is_told(user: OrdinaryUser) -> None:
    tail = ("tail", "-c", "100m", "/dev/zero")
    user.attempt("run", "--name", "big", "--network", "none", "--memory", "16m", "busybox", *tail)
    state = json.loads(user("inspect", "big").stdout)[0]["State"]
    user("rm", "big")
    assert (state["ExitCode"], state["OOMKilled"]) == (137, True)


def test_update_pause_and_stats(user: OrdinaryUser) -> None:
    """Of a container that was started without limits: its processes move into a scope then."""
    user("run", "-d", "--name", "web", "--network", "none", "busybox", "sh", "-c", "sleep 600 & wait")
    try:
        user("pause", "web")
        assert read_of_group(user, "cgroup.freeze") == "1"
        user("unpause", "web")
        user("update", "--memory", "48m", "--pids-limit", "9", "web")
        assert (read_of_group(user, "memory.max"), read_of_group(user, "pids.max")) == ("50331648", "9")
        with user.start("exec", "web", "sleep", "600") as joined:
            until(lambda: read_of_group(user, "pids.current") == "3")
            row = json.loads(user("stats", "--no-stream", "--format", "json", "web").stdout)
            assert row["MemUsage"].endswith(" / 48MiB")
            user("restart", "-t", "0", "web")
            assert joined.wait(60) == 137
        assert user("exec", "web", "sh", "-c", READ).stdout.split()[:2] == ["50331648", "9"]
    finally:
        user("rm", "-f", "web")
    until(lambda: not scopes(user))


def test_a_limit_of_a_build(user: OrdinaryUser, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN test $(cat /sys/fs/cgroup/memory.max) = 67108864\n")
    user("build", "--network", "none", "--memory", "64m", user.give(tmp_path))
