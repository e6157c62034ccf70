"""Spec → operations: what will be done to start a container, decided without doing it.

Pure. The order is runc's (keyring, network, mounts, pivot_root, console, host name, sysctl,
read-only and masked paths, then the process's own limits, user, filter and capabilities),
except that masks and read-only paths come before pivot_root: they are resolved inside the
root by openat2 and attached by descriptor, which is as safe there and keeps the host's
tree out of every later step.

Spec: runtime-spec 1.2, "Lifecycle"; runc ``libcontainer/standard_init_linux.go``.
"""

from __future__ import annotations

import os
import stat
from itertools import count

from image.errors import InvalidSpec
from runner.runtime import operations
from runner.runtime.lifecycle import Lifecycle
from runner.runtime.mount_options import MountOptions, parse_options
from runner.runtime.operations import Operation
from runner.runtime.plan_process import process_steps
from runner.runtime.privileges import Privileges
from runner.runtime.spec import OF_PROCESS, Device, IdMapping, Mount, Spec
from store.linux import mounts, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from store.layers import OverlayMount

_CLONE_FLAGS: Final = {
    "pid": processes.CLONE_NEWPID,
    "network": processes.CLONE_NEWNET,
    "mount": processes.CLONE_NEWNS,
    "ipc": processes.CLONE_NEWIPC,
    "uts": processes.CLONE_NEWUTS,
    "user": processes.CLONE_NEWUSER,
}
_TIME: Final = "time"
_CGROUP: Final = "cgroup"
_JOIN_FLAGS: Final = {**_CLONE_FLAGS, _CGROUP: processes.CLONE_NEWCGROUP, _TIME: processes.CLONE_NEWTIME}
NEW_NAMESPACES: Final = frozenset(_CLONE_FLAGS) - {"user"} | {_CGROUP, _TIME}
"""The types that this runtime can make anew."""

_STANDARD_DEVICES: Final = (
    Device("/dev/null", "c", 1, 3),
    Device("/dev/zero", "c", 1, 5),
    Device("/dev/full", "c", 1, 7),
    Device("/dev/random", "c", 1, 8),
    Device("/dev/urandom", "c", 1, 9),
    Device("/dev/tty", "c", 5, 0),
)
_STANDARD_LINKS: Final = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)
_KINDS: Final = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

_OPTIONAL_SYSCTLS: Final = frozenset(
    {
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv6.conf.eth0.disable_ipv6",
    }
)
"""Docker's own: a kernel without them must still run containers."""

_SYSCTL_NAMESPACES: Final = (
    ("net.", "network"),
    ("fs.mqueue.", "ipc"),
    ("kernel.msg", "ipc"),
    ("kernel.sem", "ipc"),
    ("kernel.shm", "ipc"),
    ("kernel.domainname", "uts"),
)
_PEERS: Final = mounts.MS_SHARED | mounts.MS_SLAVE
_SUBDIRECTORY: Final = "X-mount.subdir="


def plan(
    spec: Spec,
    rootfs: OverlayMount | str | os.PathLike[str],
    privileges: Privileges,
    *,
    container_id: str = "container",
    network: Sequence[bytes] = (),
    lifecycle: Lifecycle = Lifecycle(),  # a frozen value
) -> tuple[Operation, ...]:
    """Every step in order; what comes before ``clone`` is done outside the new namespaces.

    ``network`` are rtnetlink requests for inside the container's network namespace. With
    ``spec.uid_mappings`` the steps are those that a user namespace allows.

    Raises InvalidSpec for what cannot be done.
    """
    _check(spec)
    return tuple(_steps(spec, rootfs, privileges, container_id, tuple(network), lifecycle))


def _check(spec: Spec) -> None:
    if not spec.process.args:
        raise InvalidSpec("process.args", "no command specified")
    if spec.namespace("mount") is None or (spec.namespace("mount") or spec.namespaces[0]).path:
        raise InvalidSpec("linux.namespaces", "a container needs a new mount namespace")
    user = spec.namespace("user")
    if user is not None and user.path:
        raise InvalidSpec("linux.namespaces", "joining a user namespace is not supported by this runtime")
    if bool(user) != bool(spec.uid_mappings) or bool(spec.uid_mappings) != bool(spec.gid_mappings):
        raise InvalidSpec("linux.uidMappings", "a user namespace and mappings of both kinds come together")
    for name in spec.sysctl:
        dotted = _sysctl_path(name).replace("/", ".")
        wanted = next((kind for prefix, kind in _SYSCTL_NAMESPACES if dotted.startswith(prefix)), None)
        if wanted is None or spec.namespace(wanted) is None:
            raise InvalidSpec(f"linux.sysctl.{name}", "does not belong to a namespace of the container")


def _steps(
    spec: Spec,
    rootfs: OverlayMount | str | os.PathLike[str],
    privileges: Privileges,
    container_id: str,
    network: tuple[bytes, ...],
    lifecycle: Lifecycle,
) -> Iterator[Operation]:
    if spec.process.terminal:
        yield operations.forget_stdio()
    yield from _namespaces(spec, lifecycle)
    if lifecycle.keyring:
        yield operations.join_keyring(f"_ses.{container_id}")
    if lifecycle.fifo_directory:
        yield operations.open_fifo_directory(lifecycle.fifo_directory)
    shared = spec.rootfs_propagation.endswith(("shared", "slave"))
    sources = [(slot, mount, parse_options(mount.options)) for slot, mount in enumerate(filter(_is_bind, spec.mounts))]
    # a mount that shares or follows what the host mounts is copied while it is still the host's peer
    yield from (_source(*source) for source in sources if source[2].propagation & _PEERS)
    yield operations.isolate_mounts(mounts.MS_SLAVE if shared else mounts.MS_PRIVATE)
    yield from (_source(*source) for source in sources if not source[2].propagation & _PEERS)
    yield _root(spec, rootfs)
    yield from _mounts(spec, privileges)
    yield from _devices(spec, privileges)
    if spec.process.terminal:
        yield operations.make_console(*(spec.process.console_size or (0, 0)))
    if not _has_cgroup_mount(spec):
        yield from _meet_parent(spec)
    yield from _names_and_sysctls(spec)  # before the network is up: what they say about it holds from the start
    if network:
        yield operations.configure_network(network)
    yield from _restrictions(spec)
    if spec.hooks.before_start:
        yield operations.await_hooks()
    yield from (operations.run_hook("createContainer", hook, "creating") for hook in spec.hooks.create_container)
    if spec.personality:
        yield operations.set_personality(_personality(spec))
    yield operations.pivot_root() if lifecycle.pivot else operations.move_root()
    if spec.process.oom_score_adj is not None:
        yield operations.set_oom_score(spec.process.oom_score_adj)
    waiting = (operations.await_start(),) if lifecycle.fifo_directory else ()
    hooks = (operations.run_hook("startContainer", hook, "created") for hook in spec.hooks.start_container)
    yield from process_steps(
        spec.process, spec.seccomp, privileges, make_directory=True, before_exec=(*waiting, *hooks)
    )


def _namespaces(spec: Spec, lifecycle: Lifecycle) -> Iterator[Operation]:
    for entry in spec.namespaces:
        if entry.path:
            yield operations.join_namespace(entry.path, _JOIN_FLAGS[entry.type])
    yield from _clocks(spec)
    for slot, mount in enumerate(filter(_is_bind, spec.mounts)):
        if mount.uid_mappings or any(word in ("idmap", "ridmap") for word in mount.options):
            yield operations.make_id_map(slot, *_id_maps(spec, mount))
    flags = 0
    for entry in spec.namespaces:
        if not entry.path:
            flags |= _CLONE_FLAGS.get(entry.type, 0)  # the cgroup namespace comes once we are in our group
    if spec.uid_mappings:
        flags |= processes.CLONE_NEWUSER
    yield operations.clone(flags, detached=lifecycle.detached)
    if spec.uid_mappings:
        yield operations.become_root()
    pids = spec.namespace("pid")
    if (pids is None or pids.path) and not spec.uid_mappings:  # others can see us
        yield operations.hide_process()


def _clocks(spec: Spec) -> Iterator[Operation]:
    entry = spec.namespace("time")
    if spec.time_offsets and (entry is None or entry.path):
        raise InvalidSpec("linux.timeOffsets", "need a new time namespace")
    if entry is not None and not entry.path:
        yield operations.offset_clocks(spec.time_offsets)


def _id_maps(spec: Spec, mount: Mount) -> tuple[str, str]:
    """The mount's own mappings or, with the option alone, the container's."""
    maps = (mount.uid_mappings, mount.gid_mappings) if mount.uid_mappings else (spec.uid_mappings, spec.gid_mappings)
    if not maps[0] or not maps[1]:
        raise InvalidSpec("mounts", f"mount on {mount.destination}: idmap without uidMappings and gidMappings")
    return _lines(maps[0]), _lines(maps[1])


def id_maps(spec: Spec) -> tuple[str, str] | None:
    """What to write to uid_map and gid_map of a container with a user namespace of its own."""
    return (_lines(spec.uid_mappings), _lines(spec.gid_mappings)) if spec.uid_mappings else None


def _lines(mappings: tuple[IdMapping, ...]) -> str:
    return "\n".join(f"{m.container_id} {m.host_id} {m.size}" for m in mappings)


def _root(spec: Spec, rootfs: OverlayMount | str | os.PathLike[str]) -> Operation:
    if isinstance(rootfs, str | os.PathLike):
        return operations.bind_root(os.path.join(os.getcwd(), rootfs))
    options = rootfs.options + (b",userxattr" if spec.uid_mappings and not rootfs.userxattr else b"")
    return operations.mount_overlay(str(rootfs.base), options, rootfs.merged)


# --- mounts and devices -----------------------------------------------------------------


def _is_bind(mount: Mount) -> bool:
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def _source(slot: int, mount: Mount, options: MountOptions) -> Operation:
    subdirectory = next((w.removeprefix(_SUBDIRECTORY) for w in options.data if w.startswith(_SUBDIRECTORY)), "")
    process = next((w.removeprefix(OF_PROCESS) for w in options.data if w.startswith(OF_PROCESS)), "0")
    return operations.open_source(
        slot, mount.source, recursive=options.recursive, subdirectory=subdirectory, process=int(process)
    )


def _has_cgroup_mount(spec: Spec) -> bool:
    return any(mount.type == _CGROUP and not _is_bind(mount) for mount in spec.mounts)


def _meet_parent(spec: Spec) -> Iterator[Operation]:
    """Once the parent has put us in our control group, it becomes the root of a namespace."""
    yield operations.await_parent()
    entry = spec.namespace(_CGROUP)
    if entry is not None and not entry.path:
        yield operations.unshare_cgroup()


def _mounts(spec: Spec, privileges: Privileges) -> Iterator[Operation]:
    met = False
    slots = count()
    for mount in spec.mounts:
        options = parse_options(mount.options)
        if _is_bind(mount):
            slot = next(slots)
            if mount.uid_mappings or options.id_mapped:
                yield operations.map_ids(slot, recursive="ridmap" in mount.options)
            yield _attach(slot, mount, options)
        elif mount.type == _CGROUP:
            if not met:
                yield from _meet_parent(spec)
                met = True
            yield from _cgroup_mounts(mount, options, privileges, apart=spec.namespace(_CGROUP) is not None)
        else:
            yield from _filesystem(spec, mount, options)


def _attach(slot: int, mount: Mount, options: MountOptions) -> Operation:
    unknown = next((word for word in options.data if not word.startswith((_SUBDIRECTORY, OF_PROCESS))), None)
    if unknown is not None:
        raise InvalidSpec("mounts", f"bind mount on {mount.destination}: unknown option {unknown!r}")
    return operations.attach_source(
        slot,
        mount.source,
        mount.destination,
        attributes=options.attributes,
        cleared=options.cleared,
        recursive=options.recursive_attributes,
        propagation=options.propagation,
    )


def _filesystem(spec: Spec, mount: Mount, options: MountOptions) -> Iterator[Operation]:
    if not mount.type:
        raise InvalidSpec("mounts", f"mount on {mount.destination} has neither a type nor a bind option")
    if "tmpcopyup" in options.data:
        if mount.type != "tmpfs":
            raise InvalidSpec("mounts", f"mount on {mount.destination}: tmpcopyup is for tmpfs")
        yield operations.copy_up(mount.destination)
    data = tuple(word for word in options.data if word != "tmpcopyup")
    if mount.type == "devpts" and spec.gid_mappings and not _maps(spec, 5):
        data = tuple(word for word in data if word != "gid=5")
    follow = mount.type not in ("proc", "sysfs")
    yield operations.mount_filesystem(
        mount.type, mount.source or mount.type, mount.destination, options.flags, ",".join(data), follow=follow
    )
    if "tmpcopyup" in options.data:
        yield operations.finish_copy_up(mount.destination)


def _personality(spec: Spec) -> int:
    known = {"LINUX": 0, "LINUX32": 8}
    if spec.personality not in known:
        raise InvalidSpec("linux.personality.domain", f"{spec.personality!r} is not LINUX or LINUX32")
    return known[spec.personality]


def _maps(spec: Spec, gid: int) -> bool:
    return any(entry.container_id <= gid < entry.container_id + entry.size for entry in spec.gid_mappings)


def _cgroup_mounts(mount: Mount, options: MountOptions, privileges: Privileges, *, apart: bool) -> Iterator[Operation]:
    """One tree for v2; for v1 a directory with each controller, as programs expect it.

    ``apart``: in a cgroup namespace, whose group a mount has as its root anyway.
    """
    groups = privileges.cgroups
    if groups.layout == "v2":
        yield operations.mount_filesystem("cgroup2", _CGROUP, mount.destination, options.flags)
    elif groups.layout in ("v1", "hybrid"):
        writable = options.flags & ~mounts.MS_RDONLY
        yield operations.mount_filesystem("tmpfs", "tmpfs", mount.destination, writable, "mode=755,size=64k")
        together: dict[str, list[str]] = {}
        for controller, place in groups.v1.items():
            together.setdefault(place, []).append(controller)
        for controllers in together.values():
            target = f"{mount.destination}/{','.join(controllers)}"
            words = ",".join(controllers)
            if apart:
                yield operations.mount_filesystem(_CGROUP, _CGROUP, target, writable, words)
            else:
                yield operations.mount_own_group(target, writable, words)
            if len(controllers) > 1:
                for name in controllers:
                    yield operations.make_link(",".join(controllers), f"{mount.destination}/{name}")
        if options.flags & mounts.MS_RDONLY:
            yield operations.remount_readonly(mount.destination)


def _devices(spec: Spec, privileges: Privileges) -> Iterator[Operation]:
    """Always supplied, except where the caller has put a /dev of their own."""
    if any(_is_bind(mount) and os.path.normpath(mount.destination) == "/dev" for mount in spec.mounts):
        return
    own_nodes = privileges.can_make_devices and not spec.uid_mappings
    listed = {device.path for device in spec.devices}
    for device in (*(d for d in _STANDARD_DEVICES if d.path not in listed), *spec.devices):
        yield operations.make_device(device, _KINDS[device.type]) if own_nodes else operations.bind_device(device.path)
    for target, path in _STANDARD_LINKS:
        yield operations.make_link(target, path)


# --- names, restrictions, process -------------------------------------------------------


def _names_and_sysctls(spec: Spec) -> Iterator[Operation]:
    if (spec.hostname or spec.domainname) and spec.namespace("uts") is None:
        raise InvalidSpec("hostname", "needs a uts namespace of the container's own")
    if spec.hostname:
        yield operations.set_hostname(spec.hostname)
    if spec.domainname:
        yield operations.set_domainname(spec.domainname)
    for name, value in spec.sysctl.items():
        path = _sysctl_path(name)
        if ".." in name or "//" in path:
            raise InvalidSpec(f"linux.sysctl.{name}", "not the name of a sysctl")
        yield operations.write_sysctl(path, value, required=path.replace("/", ".") not in _OPTIONAL_SYSCTLS)


def _sysctl_path(name: str) -> str:
    """As sysctl(8) reads it: the first separator is the one between parts, the other one belongs to a part."""
    first = next((letter for letter in name if letter in "./"), ".")
    return name.translate(str.maketrans("./", "/.")) if first == "." else name


def _restrictions(spec: Spec) -> Iterator[Operation]:
    for path in spec.readonly_paths:
        yield operations.make_readonly(path)
    for path in spec.masked_paths:
        yield operations.mask_path(path)
    if spec.root.readonly:
        yield operations.readonly_root()
