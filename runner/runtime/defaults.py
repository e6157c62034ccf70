"""Docker's defaults, exactly: what a container gets when nobody asks for anything else.

Pure: builds a ``Spec`` from what the caller wants changed. Deviations: a private cgroup
namespace on cgroup v1 too (docker gives the host's there), because a build step has no
business with the names of its host's groups.

Source: moby 28 ``oci/defaults.go``, ``oci/caps``, ``daemon/oci_linux.go``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from image.config import DEFAULT_PATH
from image.value import replace
from runner.runtime import capabilities
from runner.runtime.spec import (
    Device,
    DeviceRule,
    DockerSeccomp,
    Mount,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Root,
    Spec,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MASKED_PATHS: Final = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

MOUNTS: Final = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108  # inside the container
)

DEVICE_RULES: Final = (
    DeviceRule(allow=False),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (3, 5, 8, 9)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 1)),
)
"""Null, zero, random, urandom, tty and console; ``cgroup`` adds what every container may use."""

SYSCTLS: Final = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
"""Only for a network namespace of the container's own. Left out where the kernel lacks them."""

NAMESPACES: Final = ("mount", "network", "uts", "pid", "ipc", "cgroup")


def environment(given: Iterable[str], *, hostname: str, terminal: bool) -> tuple[str, ...]:
    """PATH, HOSTNAME and TERM as docker sets them, then what the image and the user give, which wins."""
    merged = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if terminal:
        merged["TERM"] = "xterm"
    for item in given:
        name, separator, value = item.partition("=")
        if separator:
            merged[name] = value
        else:
            merged.pop(name, None)
    return tuple(f"{name}={value}" for name, value in merged.items())


def default_spec(
    process: Process,
    *,
    hostname: str = "",
    own_network: bool = True,
    privileged: bool = False,
    readonly_root: bool = False,
    host_devices: tuple[Device, ...] = (),
    mounts: tuple[Mount, ...] = (),
    resources: Resources | None = None,
) -> Spec:
    """Docker's container around ``process``, whose ``capabilities`` the caller has chosen.

    ``mounts`` come after docker's own and replace those at the same destination; one on
    /dev replaces what docker mounts below it too.
    ``privileged`` lifts masks, read-only paths, seccomp and the device list, and gives
    ``host_devices``.
    """
    taken = {mount.destination for mount in mounts}
    standard = tuple(
        writable(mount) if privileged else mount
        for mount in MOUNTS
        if mount.destination not in taken and not ("/dev" in taken and mount.destination.startswith("/dev/"))
    )
    wanted = resources or Resources()
    return Spec(
        process=process,
        root=Root(readonly=readonly_root),
        mounts=standard + mounts,
        hostname=hostname,
        namespaces=tuple(Namespace(kind) for kind in NAMESPACES if own_network or kind != "network"),
        devices=host_devices if privileged else (),
        masked_paths=() if privileged else MASKED_PATHS,
        readonly_paths=() if privileged else READONLY_PATHS,
        sysctl=SYSCTLS if own_network else {},
        seccomp=None if privileged else DockerSeccomp(),
        resources=wanted if privileged else replace(wanted, devices=DEVICE_RULES + wanted.devices),
    )


def example_spec() -> Spec:
    """A config.json to start from: a shell on ``rootfs``, read-only, with three capabilities, as runc's."""
    granted = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
    process = Process(
        args=("sh",),
        env=(f"PATH={DEFAULT_PATH}", "TERM=xterm"),
        terminal=True,
        capabilities=capabilities.granted(granted),
        rlimits=(Rlimit("RLIMIT_NOFILE", 1024, 1024),),
        no_new_privileges=True,
    )
    return replace(default_spec(process, hostname="tierce", readonly_root=True), sysctl={}, seccomp=None)


def writable(mount: Mount) -> Mount:
    """The mount without read-only."""
    return replace(mount, options=tuple("rw" if option == "ro" else option for option in mount.options))


def host_devices(directory: str = "/dev") -> tuple[Device, ...]:
    """Every device node of the host that docker gives a privileged container."""
    return tuple(_walk_devices(directory))


_NOT_GIVEN: Final = frozenset({"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"})


def _walk_devices(directory: str) -> Iterator[Device]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _NOT_GIVEN or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk_devices(entry.path)
                continue
            found = entry.stat(follow_symlinks=False)
            kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
            if kind:
                major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
                mode = stat.S_IMODE(found.st_mode)
                yield Device(entry.path, kind, major, minor, mode, found.st_uid, found.st_gid)
