"""Other limits for a container that runs, in the control groups that it has or gets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from image.errors import NotPermitted
from runner.runtime.cgroup import leftovers, make, place, refused, write
from runner.runtime.cgroup_settings import Setting, settings
from runner.runtime.privileges import Cgroups
from runner.runtime.spec import Resources


def change(cgroups: Cgroups, groups: Sequence[str], resources: Resources) -> None:
    """Other limits for a container that runs. Raises NotPermitted or InvalidInput at the first that cannot be."""
    wanted = sorted(settings(resources, cgroups), key=lambda setting: "memsw" in setting.file)
    if _raises_memory(cgroups, groups, wanted):
        wanted.reverse()  # v1 refuses a memory limit above that of memory and swap together
    for setting in wanted:
        mount = cgroups.v1.get(setting.controller) if setting.controller else cgroups.v2
        group = next((path for path in groups if mount and path.startswith(f"{mount}/")), None)
        if group is None:
            raise NotPermitted(f"cannot set {setting.file}: the container has no group of {setting.controller or 'v2'}")
        try:
            write(f"{group}/{setting.file}", setting.value)
        except NotPermitted as error:
            if setting.asked:
                raise refused(setting, group, error) from error


def extend(
    cgroups: Cgroups, container_id: str, path: str, resources: Resources, members: Callable[[], Iterable[int]]
) -> tuple[str, ...]:
    """Make the groups that these limits need and a running container lacks, and move it there: all its groups.

    ``members`` lists its processes. Raises NotPermitted.
    """
    own = place(container_id, path)
    wanted = dict.fromkeys(setting.controller for setting in settings(resources, cgroups))
    for controller in wanted:
        mount = cgroups.v1.get(controller) if controller else cgroups.v2
        if not mount:
            raise NotPermitted(f"no cgroup controller {controller or 'v2'}")
        gather(mount, own, controller, members)
    return leftovers(cgroups, container_id, path).paths


def gather(mount: str, place: str, controller: str, members: Callable[[], Iterable[int]]) -> str:
    """The container's group in this hierarchy; made, with all processes moved there, when it has none. Raises NotPermitted."""
    group = f"{mount}/{place}"
    if not os.path.isdir(group):
        make(mount, place, controller)
        _move(group, members)
    return group


def _move(group: str, members: Callable[[], Iterable[int]]) -> None:
    """Every process, those too that are started meanwhile: again until no new one is seen."""
    moved: set[int] = set()
    while new := set(members()) - moved:
        for pid in new:
            try:
                write(f"{group}/cgroup.procs", str(pid))
            except NotPermitted:
                if os.path.exists(f"/proc/{pid}/root"):  # else it has ended meanwhile
                    raise
        moved |= new


def _raises_memory(cgroups: Cgroups, groups: Sequence[str], wanted: Sequence[Setting]) -> bool:
    group = next((path for path in groups if path.startswith(f"{cgroups.v1.get('memory')}/")), "")
    value = next((setting.value for setting in wanted if setting.file == "memory.limit_in_bytes"), "")
    try:
        with open(f"{group}/memory.limit_in_bytes") as file:
            return bool(value) and (int(value) < 0 or int(value) > int(file.read()))
    except OSError:
        return False
