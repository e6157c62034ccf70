"""Which values limit a container in control groups of either version. Pure.

Spec: runtime-spec 1.2, "Control groups"; kernel ``admin-guide/cgroup-v1`` and ``cgroup-v2``.
"""

from __future__ import annotations

from image.errors import InvalidInput
from image.value import dataclass
from runner.runtime.privileges import Cgroups
from runner.runtime.spec import DeviceRule, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ALWAYS_ALLOWED = (
    *(DeviceRule(allow=True, type=kind, access="m") for kind in "cb"),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 2)),
    DeviceRule(allow=True, type="c", major=136),
)
"""As runc adds to every list: making any node is allowed, opening only the harmless ones and ptys."""

_V2_THROTTLES = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value to write: into ``file`` of the container's group of ``controller`` ("" is v2)."""

    controller: str
    file: str
    value: str
    asked: bool


def settings(resources: Resources, cgroups: Cgroups) -> tuple[Setting, ...]:
    """What to write for these limits on this layout. Pure. Raises InvalidInput."""
    memory, together = resources.memory_limit or 0, resources.memory_swap or 0
    if 0 < together < memory:
        raise InvalidInput(f"the limit of memory and swap together, {together}, is below that of memory, {memory}")
    if cgroups.layout == "v2":
        return tuple(_v2_settings(resources))
    return tuple(_v1_settings(resources))


def _v1_settings(resources: Resources) -> Iterator[Setting]:
    for rule in (*resources.devices, *ALWAYS_ALLOWED) if resources.devices else ():
        yield Setting("devices", "devices.allow" if rule.allow else "devices.deny", _device_line(rule), asked=False)
    numbers = (
        ("memory", "memory.limit_in_bytes", resources.memory_limit),
        ("memory", "memory.soft_limit_in_bytes", resources.memory_reservation),
        ("memory", "memory.memsw.limit_in_bytes", resources.memory_swap),
        ("cpu", "cpu.shares", resources.cpu_shares),
        ("cpu", "cpu.cfs_period_us", resources.cpu_period_us),
        ("cpu", "cpu.cfs_quota_us", resources.cpu_quota_us),
    )
    for controller, file, value in numbers:
        if value:  # 0 is no wish, as for runc
            # swap accounting is a boot option of v1: docker only warns, since the user rarely asks for it
            yield Setting(controller, file, str(value), asked="memsw" not in file)
    if resources.cpuset_cpus:
        yield Setting("cpuset", "cpuset.cpus", resources.cpuset_cpus, asked=True)
    if resources.cpuset_mems:
        yield Setting("cpuset", "cpuset.mems", resources.cpuset_mems, asked=True)
    if resources.memory_swappiness is not None:
        yield Setting("memory", "memory.swappiness", str(resources.memory_swappiness), asked=False)
    if resources.oom_kill_disable:
        yield Setting("memory", "memory.oom_control", "1", asked=False)
    if resources.blkio_weight is not None:
        # the scheduler of the disks decides whether there are weights; docker discards them with a warning
        yield Setting("blkio", "blkio.weight", str(resources.blkio_weight), asked=False)
    for throttle in resources.throttles:
        line = f"{throttle.major}:{throttle.minor} {throttle.rate}"
        yield Setting("blkio", f"blkio.throttle.{throttle.kind}_device", line, asked=True)
    if resources.pids_limit is not None:
        yield Setting("pids", "pids.max", _limit(resources.pids_limit), asked=True)
    for size, limit in resources.hugepage_limits:
        yield Setting("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit), asked=limit > 0)
    if resources.unified:
        raise InvalidInput("linux.resources.unified needs cgroup v2, and this machine has its controllers in v1")


def _v2_settings(resources: Resources) -> Iterator[Setting]:
    memory, swap = resources.memory_limit, resources.memory_swap
    if memory is not None:
        yield Setting("", "memory.max", _limit(memory), asked=True)
    if swap is not None and memory is not None:
        only_swap = swap - memory if swap > 0 else -1
        yield Setting("", "memory.swap.max", "0" if only_swap == 0 else _limit(only_swap), asked=False)
    if resources.memory_reservation:
        yield Setting("", "memory.low", _limit(resources.memory_reservation), asked=True)
    if resources.cpu_shares:
        yield Setting("", "cpu.weight", str(weight(resources.cpu_shares)), asked=True)
    if resources.cpu_quota_us:
        quota = str(resources.cpu_quota_us) if resources.cpu_quota_us > 0 else "max"
        yield Setting("", "cpu.max", f"{quota} {resources.cpu_period_us or 100_000}", asked=True)
    if resources.cpuset_cpus:
        yield Setting("", "cpuset.cpus", resources.cpuset_cpus, asked=True)
    if resources.cpuset_mems:
        yield Setting("", "cpuset.mems", resources.cpuset_mems, asked=True)
    if resources.blkio_weight is not None:
        yield Setting("", "io.bfq.weight", str(resources.blkio_weight), asked=False)
    for throttle in resources.throttles:
        line = f"{throttle.major}:{throttle.minor} {_V2_THROTTLES[throttle.kind]}={throttle.rate}"
        yield Setting("", "io.max", line, asked=True)
    if resources.pids_limit is not None:
        yield Setting("", "pids.max", _limit(resources.pids_limit), asked=True)
    for size, limit in resources.hugepage_limits:
        yield Setting("", f"hugetlb.{size}.max", str(limit), asked=limit > 0)
    for file, value in resources.unified:
        yield Setting("", file, value, asked=True)


def weight(shares: int) -> int:
    """cgroup v1 cpu.shares (2 to 262144) as v2 cpu.weight (1 to 10000), as runc 1.3 converts."""
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = log2(shares)
    return ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def _limit(value: int) -> str:
    return str(value) if value > 0 else "max"


def _device_line(rule: DeviceRule) -> str:
    if rule.type == "a":
        return "a"
    major = "*" if rule.major is None or rule.major < 0 else str(rule.major)
    minor = "*" if rule.minor is None or rule.minor < 0 else str(rule.minor)
    return f"{rule.type} {major}:{minor} {rule.access}"
