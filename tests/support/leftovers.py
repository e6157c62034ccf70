"""What a test may leave behind on the machine, before and after.

Processes are found without guessing at their names: the test process becomes the parent of
orphans (PR_SET_CHILD_SUBREAPER), so whatever Tierce forgets turns up among its children.
Mounts and files are looked for in the places that tests and Tierce use, so that other
programs on the machine don't disturb.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from tests.support.process import DAEMONS

_PR_SET_CHILD_SUBREAPER = 36
_PEER_PROGRAMS = ("containerd-shim", "conmon", "containerd", "dockerd", "catatonit")
_OWN_PLACES = ("/run/tierce", "/var/lib/tierce", "/tmp/tierce", "/dev/shm/tierce")
_PEER_FILES = ("/tmp/tierce-peers-", "/tmp/tierce-fixtures-")
_IPTABLES = ("filter", "nat", "mangle", "raw", "security")  # iptables makes them for docker, podman and anyone
_GRACE_S = 20.0  # the kernel takes network namespaces down in its own time, many at once when it is busy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state that a test must restore. Each item is a line that a person can act on."""

    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    files: frozenset[str]

    def new_since(self, before: Snapshot) -> list[str]:
        """What is here and was not there before."""
        return [
            f"{each.name}: {item}"
            for each in fields(self)
            for item in sorted(getattr(self, each.name) - getattr(before, each.name))
        ]


def adopt_orphans() -> None:
    """Make this process the parent of every process below it whose own parent has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def snapshot(places: Iterable[Path] = ()) -> Snapshot:
    """The state now. ``places`` are directories of the test, searched for mounts."""
    places = list(places)
    return Snapshot(
        mounts=frozenset(_mounts([*map(str, places), *_OWN_PLACES])),
        namespaces=frozenset(os.listdir("/run/netns") if os.path.isdir("/run/netns") else ()),
        links=frozenset(os.listdir("/sys/class/net")),
        tables=frozenset(_nft_tables()),
        cgroups=frozenset(_cgroups()),
        processes=frozenset(_children()),
        files=frozenset(_files(places)),
    )


def leftovers(before: Snapshot, places: Iterable[Path] = ()) -> list[str]:
    """What appeared since ``before`` and stays. Things that are just ending get a moment to do so."""
    deadline = time.monotonic() + _GRACE_S
    places = list(places)
    while found := snapshot(places).new_since(before):
        if time.monotonic() > deadline:
            return found
        _end_lingering()
        _reap_adopted()
        time.sleep(0.05)
    return []


def _mounts(places: list[str]) -> Iterable[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4]
        if point.startswith(tuple(places)) and not point.startswith(_PEER_FILES):
            yield point


def _nft_tables() -> list[str]:
    try:
        listed = subprocess.run(["nft", "list", "tables"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return [line for line in listed.stdout.splitlines() if line.split()[-1] not in _IPTABLES]


def _cgroups() -> Iterable[str]:
    """The groups of containers: what is below a group called ``tierce`` in any hierarchy."""
    tops = [*Path("/sys/fs/cgroup").glob("*/tierce"), Path("/sys/fs/cgroup/tierce")]
    return (str(path) for top in tops for path in top.glob("*/"))


def _files(places: list[Path]) -> Iterable[str]:
    """What Tierce keeps outside its root while a container lives, and temporary files anywhere.

    Locks are not among them: they stay where they are once made.
    """
    yield from (str(path) for place in places for path in place.glob("*/*-run/containers/*"))
    for place in map(Path, _OWN_PLACES):
        for top in place.parent.glob(f"{place.name}*"):
            if not str(top).startswith(_PEER_FILES):
                yield from (str(path) for path in [top, *top.rglob("*")] if not path.is_dir() and path.name != "lock")


def _children() -> Iterable[str]:
    for pid in _child_ids():
        argv = _argv(pid)
        if pid not in DAEMONS and os.path.basename(argv[0]) not in _PEER_PROGRAMS:
            yield f"{pid} {' '.join(argv)}"


def _end_lingering() -> None:
    """A default network that waits for its next container takes less than a test's time to wait for."""
    for pid in _child_ids():
        if any("runner.network.lingering" in word for word in _argv(pid)):
            os.kill(pid, signal.SIGTERM)


def _child_ids() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1] or ["(zombie)"]
    except OSError:
        return ["(gone)"]


def _reap_adopted() -> None:
    """Collect adopted children that have ended; a test's own Popen objects cope with that."""
    for pid in _child_ids():
        if pid not in DAEMONS:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
