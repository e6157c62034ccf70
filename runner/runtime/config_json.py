"""A bundle's ``config.json``: hostile bytes to a ``Spec``, and a ``Spec`` to bytes.

Spec: runtime-spec 1.2. What this runtime cannot honour (labels of AppArmor and SELinux,
other platforms) is refused by name, never dropped.
"""

from __future__ import annotations

from types import MappingProxyType

from image.document import Node, decode, encode
from image.errors import InvalidInput, InvalidSpec
from runner.runtime.spec import (
    NAMESPACES,
    Capabilities,
    Device,
    DeviceRule,
    DockerSeccomp,
    Hook,
    Hooks,
    IdMapping,
    IoPriority,
    Mount,
    NamedUser,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Root,
    Scheduler,
    Seccomp,
    SeccompArgument,
    SeccompRule,
    Spec,
    Throttle,
    User,
    no_strings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Final, TypeVar

    from runner.runtime.spec import StringMap, ThrottleKind

    _T = TypeVar("_T")


def decode_spec(raw: bytes) -> Spec:
    """A ``config.json`` from outside. Raises InvalidSpec with the field's path."""
    document = decode(raw, InvalidSpec)
    for unsupported in ("solaris", "windows", "vm", "zos"):
        node = document.get(unsupported)
        if node is not None and node.value:
            raise node.fail("not supported by this runtime")
    linux = document.get("linux") or Node({}, "linux", InvalidSpec)
    for unsupported in ("mountLabel", "intelRdt", "memoryPolicy", "netDevices"):
        node = linux.get(unsupported)
        if node is not None and node.value:
            raise node.fail("not supported by this runtime")
    root = document.need("root")
    return Spec(
        process=_process(document.need("process")),
        root=Root(root.need("path").string(), _flag(root, "readonly")),
        mounts=_each(document, "mounts", _mount),
        hostname=document.maybe_string("hostname"),
        domainname=document.maybe_string("domainname"),
        namespaces=_namespaces(linux),
        devices=_each(linux, "devices", _device),
        masked_paths=_strings(linux, "maskedPaths"),
        readonly_paths=_strings(linux, "readonlyPaths"),
        sysctl=_string_map(linux, "sysctl"),
        seccomp=_optional(linux, "seccomp", _seccomp),
        resources=_optional(linux, "resources", _resources) or Resources(),
        cgroups_path=linux.maybe_string("cgroupsPath"),
        rootfs_propagation=linux.maybe_string("rootfsPropagation"),
        uid_mappings=_each(linux, "uidMappings", _id_mapping),
        gid_mappings=_each(linux, "gidMappings", _id_mapping),
        annotations=_string_map(document, "annotations"),
        oci_version=document.need("ociVersion").string(),
        hooks=_optional(document, "hooks", _hooks) or Hooks(),
        time_offsets=tuple(_time_offsets(linux)),
        personality=_optional(linux, "personality", lambda n: n.need("domain").string()) or "",
    )


def decode_process(raw: bytes) -> Process:
    """The ``process`` of a config.json by itself, as ``exec --process`` takes it. Raises InvalidSpec."""
    return _process(decode(raw, InvalidSpec))


def decode_resources(raw: bytes) -> Resources:
    """The ``resources`` of a config.json by itself, as ``update --resources`` takes them. Raises InvalidSpec."""
    return _resources(decode(raw, InvalidSpec))


def _time_offsets(linux: Node) -> Iterator[tuple[str, int, int]]:
    member = linux.get("timeOffsets")
    for clock in member.keys() if member else ():
        entry = linux.need("timeOffsets").need(clock)
        if clock not in ("monotonic", "boottime"):
            raise entry.fail("not a clock that can be offset")
        yield clock, _integer(entry, "secs") or 0, _unsigned(entry, "nanosecs")


def _hooks(node: Node) -> Hooks:
    return Hooks(
        prestart=_each(node, "prestart", _hook),
        create_runtime=_each(node, "createRuntime", _hook),
        create_container=_each(node, "createContainer", _hook),
        start_container=_each(node, "startContainer", _hook),
        poststart=_each(node, "poststart", _hook),
        poststop=_each(node, "poststop", _hook),
    )


def _hook(node: Node) -> Hook:
    path = node.need("path").string()
    if not path.startswith("/") or "\0" in path:
        raise node.need("path").fail("not an absolute path")
    timeout_s = _integer(node, "timeout")
    if timeout_s is not None and timeout_s <= 0:
        raise node.need("timeout").fail("not greater than zero")
    return Hook(path, _strings(node, "args"), _strings(node, "env"), timeout_s)


def _each(node: Node, key: str, read: Callable[[Node], _T]) -> tuple[_T, ...]:
    member = node.get(key)
    return tuple(read(item) for item in member.items()) if member else ()


def _optional(node: Node, key: str, read: Callable[[Node], _T]) -> _T | None:
    member = node.get(key)
    return read(member) if member else None


def _strings(node: Node, key: str) -> tuple[str, ...]:
    member = node.get(key)
    strings = member.strings() if member else ()
    if member and any("\0" in text for text in strings):
        raise member.fail("contains a NUL")
    return strings


def _string_map(node: Node, key: str) -> StringMap:
    member = node.get(key)
    return MappingProxyType(member.string_map()) if member else no_strings()


def _flag(node: Node, key: str) -> bool:
    return _optional(node, key, Node.boolean) or False


def _integer(node: Node, key: str) -> int | None:
    return _optional(node, key, Node.integer)


def _unsigned(node: Node, key: str, default: int = 0, bits: int = 32) -> int:
    value = _integer(node, key)
    if value is None:
        return default
    if not 0 <= value < 1 << bits:
        raise node.need(key).fail(f"not an unsigned number of {bits} bits")
    return value


def _process(node: Node) -> Process:
    size = node.get("consoleSize")
    cwd = node.need("cwd").string()
    if not cwd.startswith("/") or "\0" in cwd:
        raise node.need("cwd").fail("not an absolute path")
    for unsupported in ("selinuxLabel", "execCPUAffinity", "apparmorProfile"):
        member = node.get(unsupported)
        if member is not None and member.value and member.value != "unconfined":
            raise member.fail("not supported by this runtime")
    return Process(
        args=_strings(node, "args"),
        env=_strings(node, "env"),
        cwd=cwd,
        user=_optional(node, "user", _user) or User(),
        terminal=_flag(node, "terminal"),
        console_size=(_unsigned(size, "height", bits=16), _unsigned(size, "width", bits=16)) if size else None,
        capabilities=_optional(node, "capabilities", _capabilities) or Capabilities(),
        rlimits=_each(node, "rlimits", _rlimit),
        no_new_privileges=_flag(node, "noNewPrivileges"),
        oom_score_adj=_integer(node, "oomScoreAdj"),
        scheduler=_optional(node, "scheduler", _scheduler),
        io_priority=_optional(node, "ioPriority", _io_priority),
    )


def _scheduler(node: Node) -> Scheduler:
    return Scheduler(
        node.need("policy").string(),
        _integer(node, "nice") or 0,
        _unsigned(node, "priority"),
        _strings(node, "flags"),
        _unsigned(node, "runtime", bits=64),
        _unsigned(node, "deadline", bits=64),
        _unsigned(node, "period", bits=64),
    )


def _io_priority(node: Node) -> IoPriority:
    return IoPriority(node.need("class").string(), _unsigned(node, "priority"))


def _user(node: Node) -> User:
    umask = _integer(node, "umask")
    gids = node.get("additionalGids")
    return User(
        uid=_unsigned(node, "uid"),
        gid=_unsigned(node, "gid"),
        umask=None if umask is None else umask & 0o777,
        additional_gids=tuple(item.integer() & 0xFFFFFFFF for item in gids.items()) if gids else (),
    )


def _capabilities(node: Node) -> Capabilities:
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return Capabilities(**{name: _strings(node, name) for name in sets})


def _rlimit(node: Node) -> Rlimit:
    return Rlimit(node.need("type").string(), _unsigned(node, "soft", bits=64), _unsigned(node, "hard", bits=64))


def _mount(node: Node) -> Mount:
    mount = Mount(
        node.need("destination").string(),
        node.maybe_string("type"),
        node.maybe_string("source"),
        _strings(node, "options"),
        _each(node, "uidMappings", _id_mapping),
        _each(node, "gidMappings", _id_mapping),
    )
    if bool(mount.uid_mappings) != bool(mount.gid_mappings):
        raise node.fail("needs both uidMappings and gidMappings, or neither")
    if "\0" in mount.destination + mount.type + mount.source:
        raise node.fail("contains a NUL")
    return mount


def _namespaces(linux: Node) -> tuple[Namespace, ...]:
    found = _each(linux, "namespaces", lambda n: Namespace(n.need("type").string(), n.maybe_string("path")))
    kinds = [entry.type for entry in found]
    for entry in found:
        if entry.type not in NAMESPACES:
            raise InvalidSpec("linux.namespaces", f"type {entry.type!r} is not supported")
        if kinds.count(entry.type) > 1:
            raise InvalidSpec("linux.namespaces", f"type {entry.type!r} occurs twice")
    return found


def _device(node: Node) -> Device:
    kind = node.need("type").string()
    if kind not in ("c", "b", "u", "p"):
        raise node.need("type").fail("not one of c, b, u, p")
    path = node.need("path").string()
    if "\0" in path:
        raise node.need("path").fail("contains a NUL")
    return Device(
        path,
        kind,
        _unsigned(node, "major"),
        _unsigned(node, "minor"),
        _unsigned(node, "fileMode", 0o666) & 0o7777,
        _unsigned(node, "uid"),
        _unsigned(node, "gid"),
    )


def _device_rule(node: Node) -> DeviceRule:
    return DeviceRule(
        node.need("allow").boolean(),
        node.maybe_string("type") or "a",
        _integer(node, "major"),
        _integer(node, "minor"),
        node.maybe_string("access") or "rwm",
    )


def _resources(node: Node) -> Resources:
    empty = Node({}, node.path, InvalidSpec)
    memory, cpu, pids, block = (node.get(key) or empty for key in ("memory", "cpu", "pids", "blockIO"))
    rdma = node.get("rdma")
    if rdma is not None and rdma.value:
        raise rdma.fail("not supported by this runtime")
    return Resources(
        devices=_each(node, "devices", _device_rule),
        memory_limit=_integer(memory, "limit"),
        memory_reservation=_integer(memory, "reservation"),
        memory_swap=_integer(memory, "swap"),
        cpu_shares=_integer(cpu, "shares"),
        cpu_quota_us=_integer(cpu, "quota"),
        cpu_period_us=_integer(cpu, "period"),
        cpuset_cpus=cpu.maybe_string("cpus"),
        cpuset_mems=cpu.maybe_string("mems"),
        pids_limit=_integer(pids, "limit"),
        memory_swappiness=_integer(memory, "swappiness"),
        oom_kill_disable=_flag(memory, "disableOOMKiller"),
        blkio_weight=_integer(block, "weight") or None,
        throttles=tuple(_throttles(block)),
        hugepage_limits=_each(
            node, "hugepageLimits", lambda n: (_file_word(n.need("pageSize")), _unsigned(n, "limit", bits=64))
        ),
        unified=_unified(node),
    )


_THROTTLES: Final[Mapping[str, ThrottleKind]] = {
    "throttleReadBpsDevice": "read_bps",
    "throttleWriteBpsDevice": "write_bps",
    "throttleReadIOPSDevice": "read_iops",
    "throttleWriteIOPSDevice": "write_iops",
}


def _throttles(block: Node) -> Iterator[Throttle]:
    for name, kind in _THROTTLES.items():
        member = block.get(name)
        for entry in member.items() if member else ():
            yield Throttle(
                kind, _unsigned(entry, "major"), _unsigned(entry, "minor"), _unsigned(entry, "rate", bits=64)
            )


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


def _seccomp(node: Node) -> Seccomp:
    return Seccomp(
        node.need("defaultAction").string(),
        _integer(node, "defaultErrnoRet"),
        _strings(node, "architectures"),
        _each(node, "syscalls", seccomp_rule),
        _strings(node, "flags"),
        node.maybe_string("listenerPath"),
        node.maybe_string("listenerMetadata"),
    )


def seccomp_rule(node: Node) -> SeccompRule:
    """One element of ``syscalls``, in a spec or in a docker profile."""
    return SeccompRule(
        _strings(node, "names"),
        node.need("action").string(),
        _integer(node, "errnoRet"),
        _each(node, "args", _seccomp_argument),
    )


def _seccomp_argument(node: Node) -> SeccompArgument:
    index = _unsigned(node, "index")
    if index > 5:
        raise node.need("index").fail("a system call has six arguments")
    return SeccompArgument(
        index, _unsigned(node, "value", bits=64), node.need("op").string(), _unsigned(node, "valueTwo", bits=64)
    )


def _id_mapping(node: Node) -> IdMapping:
    return IdMapping(_unsigned(node, "containerID"), _unsigned(node, "hostID"), _unsigned(node, "size"))


def encode_spec(spec: Spec) -> bytes:
    """The ``config.json`` of this container. Raises InvalidInput for a user that is not numeric."""
    return encode(_encode_spec(spec))


def _present(members: dict[str, Any]) -> dict[str, Any]:
    """Without members that say nothing: absent, empty text, empty lists and objects."""
    return {key: value for key, value in members.items() if value is not None and value not in ("", [], {})}


def _encode_spec(spec: Spec) -> dict[str, Any]:
    return _present({
        "ociVersion": spec.oci_version,
        "process": _encode_process(spec.process),
        "root": {"path": spec.root.path, "readonly": spec.root.readonly},
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "mounts": [_encode_mount(mount) for mount in spec.mounts],
        "hooks": _encode_hooks(spec.hooks),
        "annotations": dict(spec.annotations),
        "linux": _present({
            "uidMappings": [_encode_mapping(mapping) for mapping in spec.uid_mappings],
            "gidMappings": [_encode_mapping(mapping) for mapping in spec.gid_mappings],
            "sysctl": dict(spec.sysctl),
            "resources": _encode_resources(spec.resources),
            "cgroupsPath": spec.cgroups_path,
            "namespaces": [_present({"type": entry.type, "path": entry.path}) for entry in spec.namespaces],
            "devices": [_encode_device(device) for device in spec.devices],
            "seccomp": _encode_seccomp(spec),
            "timeOffsets": {clock: {"secs": s, "nanosecs": ns} for clock, s, ns in spec.time_offsets},
            "personality": {"domain": spec.personality} if spec.personality else {},
            "rootfsPropagation": spec.rootfs_propagation,
            "maskedPaths": list(spec.masked_paths),
            "readonlyPaths": list(spec.readonly_paths),
        }),
    })  # fmt: skip


def _encode_process(process: Process) -> dict[str, Any]:
    if isinstance(process.user, NamedUser):
        raise InvalidInput(f"cannot write user {process.user.text!r} to a runtime config: only numbers can be stored")
    user, size, sets = process.user, process.console_size, process.capabilities
    encoded = _present({
        "terminal": process.terminal or None,
        "consoleSize": {"height": size[0], "width": size[1]} if size else None,
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": _present({
            "bounding": list(sets.bounding),
            "effective": list(sets.effective),
            "permitted": list(sets.permitted),
            "inheritable": list(sets.inheritable),
            "ambient": list(sets.ambient),
        }),
        "rlimits": [{"type": limit.type, "hard": limit.hard, "soft": limit.soft} for limit in process.rlimits],
        "noNewPrivileges": process.no_new_privileges or None,
        "oomScoreAdj": process.oom_score_adj,
        "scheduler": _encode_scheduler(process.scheduler),
        "ioPriority": {"class": process.io_priority.io_class, "priority": process.io_priority.priority}
        if process.io_priority else None,
    })  # fmt: skip
    numbers = {"uid": user.uid, "gid": user.gid}
    return encoded | {"user": numbers | _present({"umask": user.umask, "additionalGids": list(user.additional_gids)})}


def _encode_scheduler(scheduler: Scheduler | None) -> dict[str, Any] | None:
    if scheduler is None:
        return None
    return _present({
        "policy": scheduler.policy,
        "nice": scheduler.nice,
        "priority": scheduler.priority,
        "flags": list(scheduler.flags),
        "runtime": scheduler.runtime_ns or None,
        "deadline": scheduler.deadline_ns or None,
        "period": scheduler.period_ns or None,
    })  # fmt: skip


def _encode_mount(mount: Mount) -> dict[str, Any]:
    return _present({
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
        "uidMappings": [_encode_mapping(mapping) for mapping in mount.uid_mappings],
        "gidMappings": [_encode_mapping(mapping) for mapping in mount.gid_mappings],
    })  # fmt: skip


def _encode_hooks(hooks: Hooks) -> dict[str, Any]:
    def each(found: tuple[Hook, ...]) -> list[dict[str, Any]]:
        return [
            _present({"path": hook.path, "args": list(hook.args), "env": list(hook.env), "timeout": hook.timeout_s})
            for hook in found
        ]

    return _present({
        "prestart": each(hooks.prestart),
        "createRuntime": each(hooks.create_runtime),
        "createContainer": each(hooks.create_container),
        "startContainer": each(hooks.start_container),
        "poststart": each(hooks.poststart),
        "poststop": each(hooks.poststop),
    })  # fmt: skip


def _encode_mapping(mapping: IdMapping) -> dict[str, Any]:
    return {"containerID": mapping.container_id, "hostID": mapping.host_id, "size": mapping.size}


def _encode_device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _encode_resources(resources: Resources) -> dict[str, Any]:
    return _present({
        "devices": [
            _present({"allow": r.allow, "type": r.type, "major": r.major, "minor": r.minor, "access": r.access})
            for r in resources.devices
        ],
        "memory": _present({
            "limit": resources.memory_limit,
            "reservation": resources.memory_reservation,
            "swap": resources.memory_swap,
            "swappiness": resources.memory_swappiness,
            "disableOOMKiller": resources.oom_kill_disable or None,
        }),
        "cpu": _present({
            "shares": resources.cpu_shares,
            "quota": resources.cpu_quota_us,
            "period": resources.cpu_period_us,
            "cpus": resources.cpuset_cpus,
            "mems": resources.cpuset_mems,
        }),
        "pids": _present({"limit": resources.pids_limit}),
        "blockIO": _present({
            "weight": resources.blkio_weight,
            **{
                name: [
                    {"major": t.major, "minor": t.minor, "rate": t.rate} for t in resources.throttles if t.kind == kind
                ]
                for name, kind in _THROTTLES.items()
            },
        }),
        "hugepageLimits": [{"pageSize": size, "limit": limit} for size, limit in resources.hugepage_limits],
        "unified": dict(resources.unified),
    })  # fmt: skip


def _encode_seccomp(spec: Spec) -> dict[str, Any] | None:
    seccomp = spec.seccomp
    if isinstance(seccomp, DockerSeccomp):
        from runner.runtime.seccomp import docker_rules

        seccomp = docker_rules(spec.process.capabilities.bounding)
    if seccomp is None:
        return None
    return _present({
        "defaultAction": seccomp.default_action,
        "defaultErrnoRet": seccomp.default_errno,
        "architectures": list(seccomp.architectures),
        "flags": list(seccomp.flags),
        "listenerPath": seccomp.listener_path,
        "listenerMetadata": seccomp.listener_metadata,
        "syscalls": [
            _present({
                "names": list(rule.names),
                "action": rule.action,
                "errnoRet": rule.errno,
                "args": [
                    {"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op} for a in rule.args
                ],
            })
            for rule in seccomp.rules
        ],
    })  # fmt: skip
