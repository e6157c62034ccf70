"""Containers whose processes are forks of one: they share nothing, and end with their launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from runner.runtime import cgroup
from runner.runtime.defaults import DEVICE_RULES
from runner.runtime.fork_server import ForkServer
from runner.runtime.privileges import Privileges
from runner.runtime.spec import Mount, Resources
from store.layers import in_private_mounts
from store.linux.mounts import mount
from tests.support.boxes import Box
from tests.support.waiting import until

pytestmark = pytest.mark.root


@pytest.fixture
def server(privileges: Privileges) -> Iterator[ForkServer]:
    with ForkServer() as server:
        server.limit_devices(
            cgroup.create(privileges.cgroups, "forks", Resources(devices=DEVICE_RULES))
            if "devices" in privileges.cgroups.v1
            else cgroup.ControlGroups(()),
            DEVICE_RULES,
        )
        yield server


@pytest.fixture
def forked(box: Box, server: ForkServer) -> Box:
    return replace(box, spawn=server.spawn)


def test_a_fork_is_a_container_like_any(box: Box, forked: Box) -> None:
    script = """
ls -l /proc/self/fd | wc -l; ps -o pid,sid,comm; cat /proc/self/environ; grep -E 'Cap|Sig|Seccomp|Groups' /proc/self/status
cut -d: -f2- /proc/1/cgroup | grep -v devices; exit 7
"""
    expected = box.sh(script)
    assert forked.sh(script) == expected
    assert forked.sh(script) == expected
    assert expected.code == 7


def test_devices_are_limited_by_the_group_that_it_is_born_in(forked: Box) -> None:
    if "devices" not in forked.privileges.cgroups.v1:
        pytest.skip("needs a cgroup v1 devices controller")
    script = "mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2; mknod /dev/null2 c 1 3 && echo fine > /dev/null2"
    with forked.started(forked.spec("sleep", "1000")) as container:
        groups = Path(f"/proc/{container.pid}/cgroup").read_text()
    assert ":devices:/tierce/forks\n" in groups
    done = forked.sh(script)
    assert (done.code, done.err) == (0, "cat: can't open '/dev/kmsg2': Operation not permitted\n")


def test_nothing_of_another_container_is_open_in_it(forked: Box) -> None:
    with forked.started(forked.spec("sleep", "1000")) as one, forked.started(forked.spec("sleep", "1000")) as two:
        ours, theirs = (_sockets_and_files(_parent(container.pid)) for container in (one, two))
        assert len(ours) == len(theirs) == 2  # the control socket and the lease
        assert not ours & theirs
        assert _parent(_parent(one.pid)) == os.getpid()


def _sockets_and_files(pid: int) -> set[str]:
    found = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return {name for name in found if name != "/dev/null" and not name.startswith("anon_inode:")}


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_it_sees_the_mounts_of_the_thread_that_asks(forked: Box, tmp_path: Path) -> None:
    (tmp_path / "point").mkdir()

    def inside() -> str:
        mount(b"tmpfs", os.fsencode(tmp_path / "point"), b"tmpfs")
        (tmp_path / "point/file").write_text("seen")
        spec = forked.spec("cat", "/given/file")
        given = Mount("/given", "bind", str(tmp_path / "point"), ("rbind", "ro"))
        return forked.run(replace(spec, mounts=(*spec.mounts, given))).out

    assert in_private_mounts(inside) == "seen"
    assert forked.sh("echo $0").out == "sh\n"


_HOLDER = """
import sys
from pathlib import Path
from runner.runtime.fork_server import ForkServer
from runner.runtime.privileges import probe
from tests.support.boxes import Box
with ForkServer() as server:
    box = Box(Path(sys.argv[1]), Path(sys.argv[2]), probe(), server.spawn)
    with box.started(box.spec("sleep", "1000")) as container:
        print(container.pid, server._pid, flush=True)
        container.wait()
"""


def test_it_ends_with_a_killed_launcher(box: Box) -> None:
    command = [sys.executable, "-c", _HOLDER, str(box.rootfs), str(box.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as launcher:
        assert launcher.stdout is not None
        container, server = map(int, launcher.stdout.readline().split())
        pids = (container, _parent(container), server)
        launcher.kill()
    until(lambda: not any(_lives(pid) for pid in pids))
    assert box.sh("true").code == 0  # the next one sweeps


def _lives(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
