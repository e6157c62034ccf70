"""What a container is to be: the OCI runtime configuration as values.

``config_json`` reads and writes them as a bundle's ``config.json``; the builder and
``tierce run`` make a ``Spec`` directly. ``plan`` turns it into operations.

Spec: runtime-spec 1.2, "Configuration" and "Linux Container Configuration".
"""

from __future__ import annotations

from image.value import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeAlias

    ThrottleKind: TypeAlias = Literal["read_bps", "write_bps", "read_iops", "write_iops"]
    StringMap: TypeAlias = Mapping[str, str]

OCI_VERSION = "1.2.0"
NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")


@dataclass(frozen=True, slots=True)
class User:
    """Numeric identity. ``umask`` None leaves 0022."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedUser:
    """``user[:group]`` by name or number, looked up in the container's own files at start.

    ``groups`` are further group names or numbers (docker's ``--group-add``).
    """

    text: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets, each of names such as ``CAP_CHOWN``."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A resource limit such as ``RLIMIT_NOFILE``; 2**64-1 is no limit.

    One that is ``required`` fails the start when it may not be raised so far; others warn.
    """

    type: str
    soft: int
    hard: int
    required: bool = False


@dataclass(frozen=True, slots=True)
class Scheduler:
    """sched_setattr(2): ``policy`` such as SCHED_BATCH, ``flags`` such as SCHED_FLAG_RESET_ON_FORK; times in ns."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0


@dataclass(frozen=True, slots=True)
class IoPriority:
    """ioprio_set(2): a class such as IOPRIO_CLASS_BE, and 0 (first) to 7."""

    io_class: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """The program and what it may do. ``console_size`` is rows, columns.

    With ``init``, which is ours and not in config.json, pid 1 is a small init and the program its child.
    """

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User | NamedUser = User()
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    init: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """The root filesystem: a path, relative to the bundle or absolute."""

    path: str = "rootfs"
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class IdMapping:
    """``size`` ids from ``container_id`` inside are those from ``host_id`` outside."""

    container_id: int
    host_id: int
    size: int


OF_PROCESS = "X-tierce.process="
"""Option of a bind mount: the source is what the process with this pid has mounted there."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, in the order given. ``type`` "" or "bind" with option bind/rbind is a bind mount."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A new namespace of this type, or the existing one at ``path``."""

    type: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A node to make. ``type`` is c, b, u (as c) or p; ``mode`` octal."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """A line of the device cgroup. None for a number means every number."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most ``rate`` bytes or operations a second for one block device."""

    kind: ThrottleKind
    major: int
    minor: int
    rate: int


@dataclass(frozen=True, slots=True)
class Resources:
    """Cgroup limits; None leaves the kernel's default. Bytes, microseconds, counts."""

    devices: tuple[DeviceRule, ...] = ()
    memory_limit: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int | None = None
    throttles: tuple[Throttle, ...] = ()
    hugepage_limits: tuple[tuple[str, int], ...] = ()
    unified: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SeccompArgument:
    """A comparison of one argument of a system call."""

    index: int
    value: int
    op: str
    value_two: int = 0


@dataclass(frozen=True, slots=True)
class SeccompRule:
    """What to do for these calls when every comparison holds."""

    names: tuple[str, ...]
    action: str
    errno: int | None = None
    args: tuple[SeccompArgument, ...] = ()


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A filter in terms of names; ``architectures`` such as ``SCMP_ARCH_X86_64``, native implied."""

    default_action: str
    default_errno: int | None = None
    architectures: tuple[str, ...] = ()
    rules: tuple[SeccompRule, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""


@dataclass(frozen=True, slots=True)
class DockerSeccomp:
    """Docker's default profile, as it is for the container's own capabilities."""


def no_strings() -> Mapping[str, str]:
    """The empty map, which nobody can change."""
    from types import MappingProxyType

    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Hook:
    """A program of the host or, for ``start_container``, of the container; it gets the state on stdin.

    ``args`` as execve wants them; no ``timeout_s`` is no limit.
    """

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """By when they run, each list in order."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()

    @property
    def before_start(self) -> bool:
        """Whether the start has to stop for one of them."""
        return bool(self.prestart or self.create_runtime or self.create_container or self.start_container)


@dataclass(frozen=True, slots=True)
class Spec:
    """A container, wholly described.

    ``time_offsets`` are clock ("monotonic" or "boottime"), seconds and nanoseconds;
    ``personality`` is LINUX, LINUX32 or nothing.
    """

    process: Process
    root: Root = Root()
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    domainname: str = ""
    namespaces: tuple[Namespace, ...] = ()
    devices: tuple[Device, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: StringMap = field(default_factory=no_strings, hash=False)
    seccomp: Seccomp | DockerSeccomp | None = None
    resources: Resources = Resources()
    cgroups_path: str = ""
    rootfs_propagation: str = ""
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    annotations: StringMap = field(default_factory=no_strings, hash=False)
    oci_version: str = OCI_VERSION
    hooks: Hooks = Hooks()
    time_offsets: tuple[tuple[str, int, int], ...] = ()
    personality: str = ""

    def namespace(self, kind: str) -> Namespace | None:
        """The entry for this type of namespace, or None when the container shares the host's."""
        return next((entry for entry in self.namespaces if entry.type == kind), None)
