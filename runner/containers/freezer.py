"""Which control group freezes a container; how a group is frozen is ``runner.runtime.freezer``'s.

On cgroup v1 the freezer is a hierarchy of its own, into which a container moves when it is
paused for the first time; on v2 every group can be frozen.

Spec: kernel ``cgroup-v1/freezer-subsystem``, ``cgroup-v2`` "cgroup.freeze".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from image.errors import NotPermitted
from runner.containers.members import members
from runner.runtime import cgroup, cgroup_change, freezer
from runner.runtime.privileges import probe

if TYPE_CHECKING:
    from runner.containers.control import Control
    from runner.containers.records import Record


def freeze(over: Control, record: Record) -> None:
    """Returns once nothing of it runs. Raises NotPermitted."""
    cgroups = probe().cgroups
    mount = cgroups.v1.get("freezer") or cgroups.v2
    if not mount:
        raise NotPermitted("cannot pause a container: there is no freezer control group here")
    groups = [group for group in over.groups(record) if group.startswith(f"{mount}/")]
    if not groups:
        controller = "freezer" if "freezer" in cgroups.v1 else ""
        own = cgroup.place(record.id, over.movable(record))
        groups = [cgroup_change.gather(mount, own, controller, lambda: members(record.state.pid, over.groups(record)))]
    freezer.freeze(groups)
