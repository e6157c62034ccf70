"""The limits of a ``config.json``: control groups and the filter of system calls."""

from __future__ import annotations

from image.document import Node
from image.errors import InvalidSpec
from runner.runtime.config_fields import each, flag, integer, strings, unsigned
from runner.runtime.spec import DeviceRule, Resources, Seccomp, SeccompArgument, SeccompRule, Throttle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

    from runner.runtime.spec import ThrottleKind

THROTTLES: Final[Mapping[str, ThrottleKind]] = {
    "throttleReadBpsDevice": "read_bps",
    "throttleWriteBpsDevice": "write_bps",
    "throttleReadIOPSDevice": "read_iops",
    "throttleWriteIOPSDevice": "write_iops",
}


def resources(node: Node) -> Resources:
    """``linux.resources``. Raises InvalidSpec."""
    empty = Node({}, node.path, InvalidSpec)
    memory, cpu, pids, block = (node.get(key) or empty for key in ("memory", "cpu", "pids", "blockIO"))
    rdma = node.get("rdma")
    if rdma is not None and rdma.value:
        raise rdma.fail("not supported by this runtime")
    return Resources(
        devices=each(node, "devices", _device_rule),
        memory_limit=integer(memory, "limit"),
        memory_reservation=integer(memory, "reservation"),
        memory_swap=integer(memory, "swap"),
        cpu_shares=integer(cpu, "shares"),
        cpu_quota_us=integer(cpu, "quota"),
        cpu_period_us=integer(cpu, "period"),
        cpuset_cpus=cpu.maybe_string("cpus"),
        cpuset_mems=cpu.maybe_string("mems"),
        pids_limit=integer(pids, "limit"),
        memory_swappiness=integer(memory, "swappiness"),
        oom_kill_disable=flag(memory, "disableOOMKiller"),
        blkio_weight=integer(block, "weight") or None,
        throttles=tuple(_throttles(block)),
        hugepage_limits=each(
            node, "hugepageLimits", lambda n: (_file_word(n.need("pageSize")), unsigned(n, "limit", bits=64))
        ),
        unified=_unified(node),
    )


def _device_rule(node: Node) -> DeviceRule:
    return DeviceRule(
        node.need("allow").boolean(),
        node.maybe_string("type") or "a",
        integer(node, "major"),
        integer(node, "minor"),
        node.maybe_string("access") or "rwm",
    )


def _throttles(block: Node) -> Iterator[Throttle]:
    for name, kind in THROTTLES.items():
        member = block.get(name)
        for entry in member.items() if member else ():
            yield Throttle(kind, unsigned(entry, "major"), unsigned(entry, "minor"), unsigned(entry, "rate", bits=64))


def _file_word(node: Node) -> str:
    word = node.string()
    if "/" in word or "\0" in word:
        raise node.fail("not part of a file name")
    return word


def _unified(node: Node) -> tuple[tuple[str, str], ...]:
    member = node.get("unified")
    if member is None:
        return ()
    return tuple((_file_word(Node(key, member.path, InvalidSpec)), value) for key, value in member.string_map().items())


def seccomp(node: Node) -> Seccomp:
    """``linux.seccomp``. Raises InvalidSpec."""
    return Seccomp(
        node.need("defaultAction").string(),
        integer(node, "defaultErrnoRet"),
        strings(node, "architectures"),
        each(node, "syscalls", seccomp_rule),
        strings(node, "flags"),
        node.maybe_string("listenerPath"),
        node.maybe_string("listenerMetadata"),
    )


def seccomp_rule(node: Node) -> SeccompRule:
    """One element of ``syscalls``, in a spec or in a docker profile."""
    return SeccompRule(
        strings(node, "names"),
        node.need("action").string(),
        integer(node, "errnoRet"),
        each(node, "args", _seccomp_argument),
    )


def _seccomp_argument(node: Node) -> SeccompArgument:
    index = unsigned(node, "index")
    if index > 5:
        raise node.need("index").fail("a system call has six arguments")
    return SeccompArgument(
        index, unsigned(node, "value", bits=64), node.need("op").string(), unsigned(node, "valueTwo", bits=64)
    )
