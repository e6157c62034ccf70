"""The one place that knows what this process may do to start a container.

Everything else asks here: the plan (device nodes or binds, which cgroup mounts), the
launcher (start or refuse) and ``tierce system info`` (say it). Found out by looking, never
by guessing from versions, and passed on as a value.
"""

from __future__ import annotations

import os

from image.errors import NotPermitted
from image.value import dataclass
from runner.runtime import capabilities
from runner.runtime.user_namespace import Entered, entered
from store.linux.seccomp import seccomp_has_action

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Final

_NEEDED: Final = (
    "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN",
    "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT",
)  # fmt: skip
"""Without these a container of docker's kind cannot be made by the host's root."""

_V1_CONTROLLERS: Final = ("devices", "memory", "pids", "cpu", "cpuacct", "cpuset", "freezer", "blkio", "hugetlb",
                          "net_cls", "net_prio", "perf_event", "rdma")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where control groups are mounted. ``v1`` maps a controller to its mount point."""

    v1: Mapping[str, str]
    v2: str = ""

    @property
    def layout(self) -> str:
        """``v2``, ``v1``, ``hybrid`` (v1 controllers beside a v2 tree), or ``none``."""
        if self.v1:
            return "hybrid" if self.v2 else "v1"
        return "v2" if self.v2 else "none"


@dataclass(frozen=True, slots=True)
class Privileges:
    """What was found. ``capabilities`` is the effective mask."""

    uid: int
    capabilities: int
    initial_user_namespace: bool
    cgroups: Cgroups
    seccomp: bool
    mapped_gids: int = 1 << 32
    """Group ids from 0 up to here exist; all of them unless in a user namespace."""
    rootless: Entered | None = None
    """How an ordinary user's process became root of a user namespace, or why it did not."""
    unmountable: str = ""
    """Why root filesystems can't be mounted on the store all the same; "" where they can."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Capabilities that starting a container needs and this process lacks."""
        return tuple(name for name in _NEEDED if not self.capabilities & capabilities.mask([name]))

    @property
    def can_raise_limits(self) -> bool:
        """Only the first user namespace's CAP_SYS_RESOURCE counts."""
        return self.initial_user_namespace and bool(self.capabilities & capabilities.mask(["CAP_SYS_RESOURCE"]))

    @property
    def can_make_devices(self) -> bool:
        """Whether nodes made here can be opened: the kernel wants the first user namespace's root."""
        return self.initial_user_namespace and bool(self.capabilities & capabilities.mask(["CAP_MKNOD"]))

    @property
    def contains(self) -> bool:
        """Whether containers can be had, with namespaces and mounts."""
        return not self.missing and not self.unmountable

    def require(self) -> None:
        """Raises NotPermitted, naming what is missing, when no container can be started."""
        if self.uid != 0 or self.missing:
            lacking = ", ".join(self.missing) or "uid 0"
            if self.rootless is not None and self.rootless.how == "no":
                raise NotPermitted(
                    f"cannot start a container as uid {self.rootless.outer_uid}: {self.rootless.problem}, or try sudo"
                )
            raise NotPermitted(f"cannot start a container as uid {self.uid}: needs root with {lacking} (try sudo)")
        if self.unmountable:
            raise NotPermitted(f"cannot start a container: {self.unmountable}")

    def _mode(self) -> str:
        if self.uid != 0 or self.missing:
            return "cannot run containers"
        match self.rootless:
            case Entered("ranges"):
                return f"rootless, in a user namespace with {self.mapped_gids} ids"
            case Entered():
                return "rootless, in a user namespace with one id"
            case _:
                return "root" if self.initial_user_namespace else "root of a user namespace"

    def describe(self) -> Iterator[tuple[str, str]]:
        """Lines for ``tierce system info``: what, and the finding."""
        yield "Mode", self._mode()
        if self.rootless is not None and self.rootless.problem:
            yield "To improve", self.rootless.problem
        if self.rootless is not None and self.rootless.how != "no":
            ranges = self.rootless.how == "ranges"
            yield "Owners of files", "by subordinate ids" if ranges else "by records (seccomp user notification)"
        if self.missing:
            yield "Missing capabilities", ", ".join(self.missing)
        if self.unmountable:
            yield "Mounts", self.unmountable
        yield "Cgroup layout", self.cgroups.layout
        if self.cgroups.v1:
            yield "Cgroup v1 controllers", ", ".join(sorted(self.cgroups.v1))
        yield "Seccomp", "docker's default profile" if self.seccomp else "not available"
        yield "Resource limits", "can be raised" if self.can_raise_limits else "cannot be raised (no CAP_SYS_RESOURCE)"


def probe(store: Path | None = None) -> Privileges:
    """What this process may do, now; with ``store``, also whether root filesystems can be mounted on one that lies there."""
    return Privileges(
        uid=os.geteuid(),
        capabilities=_effective_capabilities(_read("/proc/self/status")),
        initial_user_namespace=_read("/proc/self/uid_map").split() == ["0", "0", "4294967295"],
        cgroups=parse_cgroups(_read("/proc/self/mountinfo")),
        seccomp=seccomp_has_action(0x7FFF0000),
        mapped_gids=_mapped_ids(_read("/proc/self/gid_map")),
        rootless=entered(),
        unmountable=_unmountable(store) if store is not None and entered() is None else "",
    )


def _unmountable(store: Path) -> str:
    """For root alone: an ordinary user's command tried it before it entered its user namespace."""
    if os.path.exists(store) and os.major(os.stat(store).st_dev):  # a disk, as usual
        return ""
    from runner.runtime.mount_probe import on_overlay

    if not on_overlay(store):
        return ""
    return f"{store} lies on an overlay, where no other can write: put it on a volume (docker run -v tierce:{store})"


def _mapped_ids(id_map: str) -> int:
    """How many ids from 0 on have no gap between them."""
    end = 0
    for start, _, size in sorted(tuple(map(int, line.split())) for line in id_map.splitlines()):
        if start != end:
            break
        end += size
    return end


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise NotPermitted(
            f"cannot read {path}: {os.strerror(error.errno or 0).lower()} (is /proc mounted?)"
        ) from error


def _effective_capabilities(status: str) -> int:
    return next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)


def parse_cgroups(mountinfo: str) -> Cgroups:
    """The cgroup mounts of a /proc/PID/mountinfo. The first mount of a controller counts.

    A named v1 hierarchy (systemd's) holds no controller and is left alone.
    """
    v1: dict[str, str] = {}
    v2 = ""
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            v2 = v2 or fields[4]
        elif kind[0] == "cgroup":
            for controller in kind[2].split(","):
                if controller in _V1_CONTROLLERS:
                    v1.setdefault(controller, fields[4])
    return Cgroups(v1, v2)
