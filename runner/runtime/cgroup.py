"""Control groups of one container: made before it runs, removed after.

A group is made only in hierarchies that have something to do: the device list always, the
others when a limit was asked for, because moving a process into a v1 group can take ten
milliseconds each. What docker would do by default and cannot be done here is a warning;
what the user asked for is an error.

Spec: runtime-spec 1.2, "Control groups"; kernel ``admin-guide/cgroup-v1`` and ``cgroup-v2``.
"""

from __future__ import annotations

import errno
import os
import time

from image.bare import signals, suppress
from image.errors import InvalidInput, NotPermitted
from image.value import dataclass
from runner.runtime.cgroup_settings import ALWAYS_ALLOWED, Setting, settings
from runner.runtime.privileges import Cgroups
from runner.runtime.spec import DeviceRule, Resources
from store.linux import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

PARENT = "tierce"
LEAF = "tierce-commands"
"""Where processes go that are in a group which is to hand controllers on: v2 wants them in a leaf."""
SCOPE = ".scope/"
"""In the path of a group that systemd has made; only systemd moves processes there from elsewhere."""
_PASSED_ON = frozenset(("memory", "pids", "cpu", "cpuset", "io", "hugetlb"))
_OOM_COUNTERS = ("memory.oom_control", "memory.events.local", "memory.events")
_REMOVE_ATTEMPTS = 100
_REMOVE_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """The directories of one container, made. ``warnings`` say what defaults could not be had."""

    paths: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    device_path: str = ""
    borrowed: bool = False

    def attach_watcher(self, pid: int) -> None:
        """Move the process that will clone the container into the v1 device group. Raises NotPermitted.

        The container is born there, and the move, which can take ten milliseconds, costs nothing
        while the interpreter starts. In groups that count or limit, the watcher has no business.
        """
        for path in self._device_paths:
            write(f"{path}/cgroup.procs", str(pid))

    def attach(self, pid: int) -> None:
        """Move the container's process into every other group. Raises NotPermitted."""
        for path in self.paths:
            if path not in self._device_paths:
                try:
                    write(f"{path}/cgroup.procs", str(pid))
                except NotPermitted:
                    if not self.borrowed or SCOPE not in path:
                        raise
                    from runner.runtime.delegation import attach

                    attach(path, pid)

    @property
    def _device_paths(self) -> tuple[str, ...]:
        return tuple(path for path in self.paths if path == self.device_path)

    def oom_killed(self) -> bool:
        """Whether the kernel has killed a process of the container for want of memory."""
        return any(_oom_kills(f"{path}/{file}") for path in self.paths for file in _OOM_COUNTERS)

    def remove(self) -> bool:
        """Kill what is left in the groups and remove them; False when one stays busy. Idempotent."""
        busy = [path for path in self.paths if not self.borrowed and not _remove(path)]
        return not busy


def create(
    cgroups: Cgroups, container_id: str, resources: Resources, path: str = "", *, everywhere: bool = False
) -> ControlGroups:
    """Make the container's groups with their limits; nothing is left when this raises.

    ``path`` is where a bundle wants them, relative to the root of each hierarchy. With
    ``everywhere`` there is a group for each controller, limited or not: others want to count,
    freeze and change limits later.
    """
    own = place(container_id, path)
    made: list[str] = []
    warnings: list[str] = []
    try:
        if cgroups.layout == "v2" and resources.devices:
            _filter_devices(cgroups.v2, own, resources.devices, made)
        for setting in settings(resources, cgroups):
            mount = cgroups.v1.get(setting.controller) if setting.controller else cgroups.v2
            group = f"{mount}/{own}"
            try:
                if mount is None:
                    raise NotPermitted(f"no cgroup controller {setting.controller}")
                if group not in made:
                    make(str(mount), own, setting.controller)
                    made.append(group)
                write(f"{group}/{setting.file}", setting.value)
            except NotPermitted as error:
                if setting.asked:
                    raise refused(setting, group, error) from error
                warning = f"{setting.controller or 'cgroup'} limits of the container are not applied: {error}"
                if not any(known.startswith(warning.split(":", maxsplit=1)[0]) for known in warnings):
                    warnings.append(warning)
        if everywhere:
            _make_others(cgroups, own, made)
    except NotPermitted:
        ControlGroups(tuple(made)).remove()
        raise
    return ControlGroups(tuple(made), tuple(warnings), f"{cgroups.v1['devices']}/{own}" if _alone(cgroups) else "")


def refused(setting: Setting, group: str, error: NotPermitted) -> NotPermitted:
    """What to tell a user whose limit could not be set in this group."""
    why = str(error)
    controller = setting.file.partition(".")[0]
    with suppress(OSError):
        if not setting.controller and controller not in _words(f"{group}/cgroup.controllers") | {"cgroup"}:
            why = f"the controller {controller} is not handed on to control groups here (for users of systemd: Delegate= of user@.service)"
    return NotPermitted(f"cannot set {setting.file} to {setting.value}: {why}")


def place(container_id: str, path: str = "") -> str:
    """Where the groups of a container are in each hierarchy. Raises InvalidInput."""
    chosen = (path or f"{PARENT}/{container_id}").strip("/")
    if ":" in chosen or ".." in chosen.split("/"):
        raise InvalidInput(f"cgroups path {path!r} is not supported: give a plain path (cgroupfs, not systemd)")
    return chosen


def _make_others(cgroups: Cgroups, place: str, made: list[str]) -> None:
    """The rest of the hierarchies that hold controllers; one that may not be used is left out."""
    mounts = {mount: controller for controller, mount in cgroups.v1.items()} or {cgroups.v2: ""}
    for mount, controller in mounts.items():
        group = f"{mount}/{place}"
        if mount and group not in made:
            with suppress(NotPermitted):
                make(mount, place, controller)
                made.append(group)


def _filter_devices(mount: str, place: str, rules: tuple[DeviceRule, ...], made: list[str]) -> None:
    """v2 has no file for the list. Without it a container that may make nodes could open the host's disks,
    so here a failure is an error.
    """
    from runner.runtime.device_filter import compile_device_filter

    make(mount, place, "")
    made.append(f"{mount}/{place}")
    try:
        fd = os.open(f"{mount}/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            devices.attach_device_filter(fd, compile_device_filter((*rules, *ALWAYS_ALLOWED)))
        finally:
            os.close(fd)
    except OSError as error:
        raise NotPermitted(f"cannot limit the container's devices by {mount}/{place}: {error}") from error


def make(mount: str, place: str, controller: str) -> None:
    """The group and those above it; tried again when another container removes the parent meanwhile.

    Raises NotPermitted.
    """
    group = f"{mount}/{place}"
    for attempt in (1, 2, 3):
        try:
            os.makedirs(group, exist_ok=True)
            break
        except FileNotFoundError:
            if attempt == 3:
                raise NotPermitted(f"{group} disappears while it is made") from None
        except OSError as error:
            raise NotPermitted(f"cannot make {group}: {os.strerror(error.errno or 0).lower()}") from error
    if controller == "cpuset":
        _inherit_cpuset(mount, place)
    elif not controller:
        _enable_controllers(mount, place)


def _inherit_cpuset(mount: str, place: str) -> None:
    """A new v1 cpuset is empty and takes no process until it has cpus and memory nodes."""
    above = mount
    for name in place.split("/"):
        group = f"{above}/{name}"
        for file in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{group}/{file}") as own, open(f"{above}/{file}") as parent:
                if not own.read().strip():
                    write(f"{group}/{file}", parent.read().strip())
        above = group


def _enable_controllers(mount: str, place: str) -> None:
    """v2 gives a group only the controllers that each group above it passes on, which has no processes itself.

    Where this process is in one of them, what is there goes to a leaf. Not in the machine's first group, which may have both.
    """
    above = mount
    for name in place.split("/"):
        missing = _words(f"{above}/cgroup.controllers") & _PASSED_ON - _words(f"{above}/cgroup.subtree_control")
        if missing and os.path.exists(f"{above}/cgroup.type") and str(os.getpid()) in _words(f"{above}/cgroup.procs"):
            make_leaf(above)  # before the first: some can be handed on all the same, and then none can be moved
        for word in sorted(missing):
            with suppress(NotPermitted):
                write(f"{above}/cgroup.subtree_control", f"+{word}")
        above = f"{above}/{name}"


def make_leaf(group: str) -> None:
    """Move what is in a v2 group of ours to a group below it, also what is started meanwhile. Raises NotPermitted."""
    try:
        os.makedirs(f"{group}/{LEAF}", exist_ok=True)
        while found := _words(f"{group}/cgroup.procs"):
            for pid in found:
                try:
                    write(f"{group}/{LEAF}/cgroup.procs", pid)
                except NotPermitted:
                    if os.path.exists(f"/proc/{pid}/root"):  # else it has ended meanwhile
                        raise
    except OSError as error:
        raise NotPermitted(f"cannot make {group}/{LEAF}: {os.strerror(error.errno or 0).lower()}") from error


def _words(path: str) -> set[str]:
    with open(path) as file:
        return set(file.read().split())


def write(path: str, value: str) -> None:
    """One value into a file of a group. Raises NotPermitted."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise NotPermitted(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from error


def joined(cgroups: Cgroups, pid: int, subgroup: str = "") -> ControlGroups:
    """The groups of process ``pid`` that are not ours already, for another process to be attached to.

    They are the container's: ``remove`` leaves them alone.
    """
    ours, theirs = membership("self"), membership(str(pid))
    paths = []
    for controllers, place in theirs.items():
        if controllers and controllers.startswith("name="):
            continue
        mount = cgroups.v1.get(controllers.split(",", maxsplit=1)[0]) if controllers else cgroups.v2
        if mount and (subgroup or ours.get(controllers) != place):
            paths.append(f"{mount}{place.rstrip('/')}{'/' if subgroup else ''}{subgroup.strip('/')}")
    device = next((path for path in paths if path.startswith(f"{cgroups.v1.get('devices')}/")), "")
    return ControlGroups(tuple(paths), (), device if _alone(cgroups) else "", borrowed=True)


def membership(process: str) -> dict[str, str]:
    """Controllers, comma separated ("" for v2), and the group of that hierarchy. Raises FileNotFoundError."""
    with open(f"/proc/{process}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        lines = (line.rstrip("\n").split(":", 2) for line in file)
        return {controllers: place for _, controllers, place in lines}


def _alone(cgroups: Cgroups) -> bool:
    """Whether the device list has a v1 hierarchy of its own."""
    return list(cgroups.v1.values()).count(cgroups.v1.get("devices", "")) == 1


def _oom_kills(path: str) -> bool:
    """A line ``oom_kill N`` with N above zero, in the file of v1 (memory.oom_control) or v2."""
    try:
        with open(path) as file:
            return any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in file)
    except OSError:
        return False  # another controller's group, or gone


def leftovers(cgroups: Cgroups, container_id: str, path: str = "") -> ControlGroups:
    """The groups that a killed launcher may have left for this container; ``path`` as for ``create``."""
    mounts = dict.fromkeys([*cgroups.v1.values(), *([cgroups.v2] if cgroups.v2 else [])])
    own = place(container_id, path)
    paths = (f"{mount}/{own}" for mount in mounts)
    return ControlGroups(tuple(path for path in paths if os.path.isdir(path)))


def _remove(path: str) -> bool:
    """rmdir, patiently: a group is busy until the kernel has buried its last process. False when it stays so."""
    for _ in range(_REMOVE_ATTEMPTS):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno != errno.EBUSY:
                break
            _kill_all(path)
            time.sleep(_REMOVE_PAUSE_S)
        else:
            break
    else:
        return False
    if os.path.basename(os.path.dirname(path)) == PARENT:
        with suppress(OSError):  # other containers are in it, or a bundle chose another place
            os.rmdir(os.path.dirname(path))
    return True


def _kill_all(path: str) -> None:
    """v2 kills a whole group at once (Linux 5.14), those too that fork meanwhile."""
    with suppress(NotPermitted):
        write(f"{path}/cgroup.kill", "1")
        return
    with suppress(OSError), open(f"{path}/cgroup.procs") as file:
        for line in file:
            with suppress(ProcessLookupError):
                os.kill(int(line), signals.SIGKILL)
