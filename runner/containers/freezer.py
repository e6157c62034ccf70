"""Which control group freezes a container; how a group is frozen is ``runner.runtime.freezer``'s.

On cgroup v1 the freezer is a hierarchy of its own, into which a container moves when it is
paused for the first time; on v2 every group can be frozen.

Spec: kernel ``cgroup-v1/freezer-subsystem``, ``cgroup-v2`` "cgroup.freeze".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from image.errors import NotPermitted
from runner.containers.members import members
from runner.runtime import cgroup, freezer
from runner.runtime.privileges import probe


def freeze(pid: int, container_id: str, groups: Iterable[str]) -> None:
    """``pid`` is the container's first process, ``groups`` are what it is in. Returns once nothing of it runs. Raises NotPermitted."""
    found = probe().cgroups
    group = _group(container_id)
    try:
        group.mkdir(parents=True, exist_ok=True)
        for process in members(pid, groups) if "freezer" in found.v1 else ():
            with suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(process))
    except OSError as error:
        raise NotPermitted(f"cannot pause the container by {group}: {os.strerror(error.errno or 0).lower()}") from error
    freezer.freeze([str(group)])


def thaw(container_id: str) -> None:
    """Raises NotPermitted."""
    freezer.thaw([str(_group(container_id))])


def _group(container_id: str) -> Path:
    found = probe().cgroups
    mount = found.v1.get("freezer") or found.v2
    if not mount:
        raise NotPermitted("cannot pause a container: there is no freezer control group here")
    return Path(mount) / cgroup.PARENT / container_id
