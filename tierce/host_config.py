"""How a container was asked for, in docker's words: ``HostConfig`` of ``inspect``.

Every member that docker has is here, also those that nothing sets, because scripts read them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from runner.containers import policy as policies
from runner.containers.limits import Limits
from runner.containers.records import Made
from runner.containers.security import Security
from runner.network.ports import Port, parse_publish
from runner.network.wishes import network_names
from runner.runtime.defaults import MASKED_PATHS, READONLY_PATHS
from runner.runtime.spec import DeviceRule
from runner.volumes.request import MountRequest
from tierce.documents import NIL_LIST, Record

_SHM_SIZE = 64 << 20
_NANO = 10**9
_ANY = "0.0.0.0"  # noqa: S104  # what a user who names no address gets


def host_config(made: Made, anonymous: Collection[str]) -> Record:
    """``anonymous`` are the targets of volumes without a name, which docker does not list."""
    options, policy = made.options, made.policy
    restart, most = policies.parse_restart(policy.restart)
    return Record(
        **_mounts([mount for mount in options.mounts if mount.target not in anonymous]),
        ContainerIDFile="",
        LogConfig=Record(Type=policy.log_driver, Config=dict(policy.log_options)),
        **_network(made),
        RestartPolicy=Record(Name=restart, MaximumRetryCount=most),
        AutoRemove=policy.remove,
        VolumeDriver="",
        VolumesFrom=_list(options.volumes_from),
        ConsoleSize=[0, 0],
        **_security(options.security),
        GroupAdd=_list(options.group_add),
        Cgroup="",
        OomScoreAdj=options.limits.oom_score_adj or 0,
        ReadonlyRootfs=options.read_only,
        ShmSize=_SHM_SIZE if options.shm_size is None else options.shm_size,
        Sysctls=dict(options.sysctls),
        Runtime="tierce-runtime",
        Isolation="",
        **_limits(options.limits),
        CgroupParent=options.cgroup_parent,
        Devices=[
            Record(PathOnHost=device.host, PathInContainer=device.container, CgroupPermissions=device.access)
            for device in options.devices
        ],
        DeviceRequests=NIL_LIST,
        Init=options.init,
        **({"Annotations": dict(options.annotations)} if options.annotations else {}),
    )


def _mounts(mounts: Sequence[MountRequest]) -> dict[str, Any]:
    return {
        "Binds": _list([_bind(mount) for mount in mounts if _is_bind(mount)]),
        "Tmpfs": {mount.target: ",".join(mount.tmpfs_options) for mount in mounts if mount.kind == "tmpfs"},
        "Mounts": [_mount(mount) for mount in mounts if mount.kind != "tmpfs" and not _is_bind(mount)],
    }


def _network(made: Made) -> dict[str, Any]:
    network = made.options.network
    return {
        "NetworkMode": network_names(network)[0],
        "PortBindings": _port_bindings(made),
        "PublishAllPorts": made.options.publish_all,
        "Dns": list(network.dns.servers),
        "DnsOptions": list(network.dns.options),
        "DnsSearch": list(network.dns.search),
        "ExtraHosts": _list([f"{name}:{address}" for name, address in network.hosts]),
        "Links": NIL_LIST,
    }


def _security(asked: Security) -> dict[str, Any]:
    opened = asked.privileged or "systempaths=unconfined" in asked.options
    return {
        "CapAdd": _list(asked.cap_add),
        "CapDrop": _list(asked.cap_drop),
        "CgroupnsMode": asked.cgroupns or "private",
        "IpcMode": asked.ipc or "private",
        "PidMode": asked.pid,
        "Privileged": asked.privileged,
        "SecurityOpt": _list(asked.options),
        "UTSMode": asked.uts,
        "UsernsMode": asked.userns,
        "DeviceCgroupRules": _list([_rule(rule) for rule in asked.device_rules]),
        "MaskedPaths": [] if opened else list(MASKED_PATHS),
        "ReadonlyPaths": [] if opened else list(READONLY_PATHS),
    }


def _list(items: Sequence[str]) -> Any:
    """Docker has ``null`` for nothing said."""
    return list(items) or NIL_LIST


def _limits(limits: Limits) -> dict[str, Any]:
    swap = limits.memory_swap or 2 * (limits.memory or 0)
    return {
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory or 0,
        "NanoCpus": round((limits.cpus or 0) * _NANO),
        "BlkioWeight": limits.blkio_weight or 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": _throttles(limits, "read_bps"),
        "BlkioDeviceWriteBps": _throttles(limits, "write_bps"),
        "BlkioDeviceReadIOps": _throttles(limits, "read_iops"),
        "BlkioDeviceWriteIOps": _throttles(limits, "write_iops"),
        "CpuPeriod": limits.cpu_period_us or 0,
        "CpuQuota": limits.cpu_quota_us or 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "MemoryReservation": limits.memory_reservation or 0,
        "MemorySwap": swap,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids_limit,
        "Ulimits": [
            Record(Name=limit.type.removeprefix("RLIMIT_").lower(), Hard=_signed(limit.hard), Soft=_signed(limit.soft))
            for limit in limits.ulimits
        ],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _signed(limit: int) -> int:
    """-1 for no limit."""
    return -1 if limit == 2**64 - 1 else limit


def _throttles(limits: Limits, kind: str) -> list[Record]:
    return [
        Record(Path=f"/dev/block/{one.major}:{one.minor}", Rate=one.rate)
        for one in limits.throttles
        if one.kind == kind
    ]


def _rule(rule: DeviceRule) -> str:
    major, minor = ("*" if number is None else str(number) for number in (rule.major, rule.minor))
    return f"{rule.type} {major}:{minor} {rule.access}"


def _is_bind(mount: MountRequest) -> bool:
    """Whether it is shown as ``-v`` would say it; what only ``--mount`` can say is shown as that."""
    return (mount.kind == "bind" and mount.make_source) or (
        mount.kind == "volume" and not (mount.subpath or mount.driver_options)
    )


def _bind(mount: MountRequest) -> str:
    mode = mount.mode or ("ro" if mount.read_only else "")
    return f"{mount.source}:{mount.target}" + (f":{mode}" if mode else "")


def _mount(mount: MountRequest) -> Record:
    return Record(Type=mount.kind, Source=mount.source, Target=mount.target, ReadOnly=mount.read_only)


def _port_bindings(made: Made) -> dict[str, list[Record]]:
    bindings: dict[str, list[Record]] = {}
    for port in _published(made):
        address = "" if port.host_address == _ANY else port.host_address
        number = str(port.host_port) if port.host_port else ""
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            Record(HostIp=address, HostPort=number)
        )
    return bindings


def _published(made: Made) -> Iterator[Port]:
    for text in made.options.publish:
        yield from parse_publish(text)
