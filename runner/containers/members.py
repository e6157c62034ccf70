"""The processes of a running container, by their numbers here.

They are those of its control group, in which processes of ours that only watch over it are not
counted. A container without a group is its process namespace and what was started from there,
deeper namespaces included.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from runner.runtime import cgroup, processes
from runner.runtime.privileges import Cgroups


def members(pid: int, groups: Iterable[str]) -> list[int]:
    """In order. ``pid`` is the first process, ``groups`` are the container's control groups.

    Raises FileNotFoundError when it has ended.
    """
    watching = _namespace(parent(pid), "mnt")
    found = [each for each in processes.pids(tuple(groups)) if not _is_in(each, "mnt", watching)]
    if found:
        return found
    own = _namespace(pid, "pid")
    if own == _namespace(os.getpid(), "pid"):
        return sorted(_with_descendants([pid]))
    return sorted(_with_descendants(each for each in _everybody() if _is_in(each, "pid", own)))


def groups_of(cgroups: Cgroups, container_id: str, path: str = "") -> tuple[str, ...]:
    """The control groups that a container has: ``path``, or where they are usually, which is where ``pause`` puts it.

    Those too that were made since it was started.
    """
    places = dict.fromkeys((cgroup.place(container_id, path), cgroup.place(container_id)))
    return tuple(group for place in places for group in cgroup.leftovers(cgroups, container_id, place).paths)


def parent(pid: int) -> int:
    """Raises FileNotFoundError."""
    return int(stat_fields(pid)[1])


def stat_fields(pid: int) -> list[str]:
    """``/proc/PID/stat`` from its third field on, which is the first after the name. Raises OSError."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rpartition(")")[2].split()


def _everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _with_descendants(first: Iterable[int]) -> set[int]:
    """A container inside the container has another namespace, but its first process has a parent here."""
    children: dict[int, list[int]] = {}
    for pid in _everybody():
        with suppress(OSError):
            children.setdefault(parent(pid), []).append(pid)
    found: set[int] = set()
    pending = list(first)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, ())
    return found


def _namespace(pid: int, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _is_in(pid: int, kind: str, namespace: int) -> bool:
    with suppress(OSError):
        return _namespace(pid, kind) == namespace
    return False
