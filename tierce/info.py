"""What this machine, this kernel and this store allow: for ``system info`` and bug reports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runner.runtime.privileges import Privileges
from store.store import Store
from tierce import VERSION
from tierce.documents import Record

_UNKNOWN: Final = "unknown"


def system_info(store: Store, privileges: Privileges) -> Record:
    """Facts under docker's names where docker has one. Sizes in bytes."""
    machine = os.uname()
    space = os.statvfs(store.root)
    return Record(
        ServerVersion=VERSION,
        DockerRootDir=str(store.root),
        Images=len(store.metadata.images()),
        Layers=len(store.metadata.layers()),
        Driver="overlay2",
        BackingFilesystem=backing_filesystem(store.root, _read("/proc/self/mountinfo")),
        RootFree=space.f_bavail * space.f_frsize,
        RootTotal=space.f_blocks * space.f_frsize,
        CgroupLayout=privileges.cgroups.layout,
        CgroupVersion="2" if privileges.cgroups.layout == "v2" else "1",
        KernelVersion=machine.release,
        OperatingSystem=_operating_system(_read("/etc/os-release") or _read("/usr/lib/os-release")),
        OSType=machine.sysname.lower(),
        Architecture=machine.machine,
        NCPU=len(os.sched_getaffinity(0)),
        MemTotal=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        Name=machine.nodename,
        KernelFeatures=dict(kernel_features()),
        Privileges=dict(privileges.describe()) | dict(_network(privileges)),
    )


def _network(privileges: Privileges) -> Iterator[tuple[str, str]]:
    """What connects an ordinary user's containers; root's have a bridge."""
    if privileges.rootless is not None:
        from runner.network.outward import find_program, missing

        yield "Network", missing() or str(find_program())
    if privileges.rootless is not None and privileges.rootless.how != "no":
        from runner.runtime.delegation import describe

        yield "Limits of containers", describe(privileges.cgroups, privileges.rootless.outer_uid)


def kernel_features() -> Iterator[tuple[str, str]]:
    """What the kernel has that images and containers need, and how it was found."""
    filesystems = _read("/proc/filesystems").split()
    yield "overlayfs", "yes" if "overlay" in filesystems else "no (modprobe overlay)"
    yield "user namespaces", _limit("/proc/sys/user/max_user_namespaces")
    yield "network namespaces", _limit("/proc/sys/user/max_net_namespaces")
    yield "nftables", "yes" if os.path.exists("/proc/sys/net/netfilter") else _UNKNOWN
    forwarding = _read("/proc/sys/net/ipv4/ip_forward").strip()
    yield "IPv4 forwarding", {"1": "on", "0": "off"}.get(forwarding, _UNKNOWN)


def _limit(path: str) -> str:
    text = _read(path).strip()
    if not text:
        return "no"
    return f"up to {text}" if text != "0" else f"no ({path} is 0)"


def backing_filesystem(root: Path, mountinfo: str) -> str:
    """The type of the file system that holds ``root``, by the longest mount point above it."""
    best, kind = "", _UNKNOWN
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if len(point) >= len(best) and (root == Path(point) or Path(point) in root.parents):
            best, kind = point, right.split()[0]
    return kind


def _operating_system(os_release: str) -> str:
    for line in os_release.splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return _UNKNOWN


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
