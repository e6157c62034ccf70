"""A bundle's ``config.json``: hostile bytes to a ``Spec``. ``config_encode`` is the way back.

Spec: runtime-spec 1.2. What this runtime cannot honour (labels of AppArmor and SELinux,
other platforms) is refused by name, never dropped.
"""

from __future__ import annotations

from image.document import Node, decode
from image.errors import InvalidSpec
from runner.runtime.config_fields import bounded, each, flag, integer, optional, string_map, strings, unsigned
from runner.runtime.config_limits import resources, seccomp
from runner.runtime.spec import (
    NAMESPACES,
    Capabilities,
    Device,
    Hook,
    Hooks,
    IdMapping,
    IoPriority,
    Mount,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Root,
    Scheduler,
    Spec,
    User,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


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
        root=Root(root.need("path").string(), flag(root, "readonly")),
        mounts=each(document, "mounts", _mount),
        hostname=document.maybe_string("hostname"),
        domainname=document.maybe_string("domainname"),
        namespaces=_namespaces(linux),
        devices=each(linux, "devices", _device),
        masked_paths=strings(linux, "maskedPaths"),
        readonly_paths=strings(linux, "readonlyPaths"),
        sysctl=string_map(linux, "sysctl"),
        seccomp=optional(linux, "seccomp", seccomp),
        resources=optional(linux, "resources", resources) or Resources(),
        cgroups_path=linux.maybe_string("cgroupsPath"),
        rootfs_propagation=_propagation(linux),
        uid_mappings=each(linux, "uidMappings", _id_mapping),
        gid_mappings=each(linux, "gidMappings", _id_mapping),
        annotations=string_map(document, "annotations"),
        oci_version=document.need("ociVersion").string(),
        hooks=optional(document, "hooks", _hooks) or Hooks(),
        time_offsets=tuple(_time_offsets(linux)),
        personality=optional(linux, "personality", lambda n: n.need("domain").string()) or "",
    )


def decode_process(raw: bytes) -> Process:
    """The ``process`` of a config.json by itself, as ``exec --process`` takes it. Raises InvalidSpec."""
    return _process(decode(raw, InvalidSpec))


def decode_resources(raw: bytes) -> Resources:
    """The ``resources`` of a config.json by itself, as ``update --resources`` takes them. Raises InvalidSpec."""
    return resources(decode(raw, InvalidSpec))


def _propagation(linux: Node) -> str:
    word = linux.maybe_string("rootfsPropagation")
    if word and word.removeprefix("r") not in ("shared", "slave", "private", "unbindable"):
        raise linux.need("rootfsPropagation").fail("not one of shared, slave, private, unbindable, or these after an r")
    return word


def _time_offsets(linux: Node) -> Iterator[tuple[str, int, int]]:
    member = linux.get("timeOffsets")
    for clock in member.keys() if member else ():
        entry = linux.need("timeOffsets").need(clock)
        if clock not in ("monotonic", "boottime"):
            raise entry.fail("not a clock that can be offset")
        yield clock, integer(entry, "secs") or 0, unsigned(entry, "nanosecs")


def _hooks(node: Node) -> Hooks:
    return Hooks(
        prestart=each(node, "prestart", _hook),
        create_runtime=each(node, "createRuntime", _hook),
        create_container=each(node, "createContainer", _hook),
        start_container=each(node, "startContainer", _hook),
        poststart=each(node, "poststart", _hook),
        poststop=each(node, "poststop", _hook),
    )


def _hook(node: Node) -> Hook:
    path = node.need("path").string()
    if not path.startswith("/") or "\0" in path:
        raise node.need("path").fail("not an absolute path")
    timeout_s = integer(node, "timeout")
    if timeout_s is not None and timeout_s <= 0:
        raise node.need("timeout").fail("not greater than zero")
    return Hook(path, strings(node, "args"), strings(node, "env"), timeout_s)


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
        args=strings(node, "args"),
        env=_environment(node),
        cwd=cwd,
        user=optional(node, "user", _user) or User(),
        terminal=flag(node, "terminal"),
        console_size=(unsigned(size, "height", bits=16), unsigned(size, "width", bits=16)) if size else None,
        capabilities=optional(node, "capabilities", _capabilities) or Capabilities(),
        rlimits=_rlimits(node),
        no_new_privileges=flag(node, "noNewPrivileges"),
        oom_score_adj=integer(node, "oomScoreAdj"),
        scheduler=optional(node, "scheduler", _scheduler),
        io_priority=optional(node, "ioPriority", _io_priority),
    )


def _scheduler(node: Node) -> Scheduler:
    return Scheduler(
        node.need("policy").string(),
        integer(node, "nice") or 0,
        unsigned(node, "priority"),
        strings(node, "flags"),
        unsigned(node, "runtime", bits=64),
        unsigned(node, "deadline", bits=64),
        unsigned(node, "period", bits=64),
    )


def _io_priority(node: Node) -> IoPriority:
    return IoPriority(node.need("class").string(), unsigned(node, "priority"))


def _user(node: Node) -> User:
    return User(
        uid=unsigned(node, "uid"),
        gid=unsigned(node, "gid"),
        umask=unsigned(node, "umask") & 0o777 if integer(node, "umask") is not None else None,
        additional_gids=tuple(dict.fromkeys(each(node, "additionalGids", lambda item: bounded(item, item.integer())))),
    )


def _environment(node: Node) -> tuple[str, ...]:
    found = strings(node, "env")
    wrong = next((entry for entry in found if entry.find("=") < 1), None)
    if wrong is not None:
        raise node.need("env").fail(f"{wrong!r} is not NAME=VALUE")
    return found


def _capabilities(node: Node) -> Capabilities:
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return Capabilities(**{name: strings(node, name) for name in sets})


def _rlimits(node: Node) -> tuple[Rlimit, ...]:
    found = each(node, "rlimits", _rlimit)
    types = [limit.type for limit in found]
    twice = next((name for name in types if types.count(name) > 1), None)
    if twice is not None:
        raise node.need("rlimits").fail(f"{twice!r} occurs twice")
    return found


def _rlimit(node: Node) -> Rlimit:
    return Rlimit(node.need("type").string(), unsigned(node, "soft", bits=64), unsigned(node, "hard", bits=64))


def _mount(node: Node) -> Mount:
    mount = Mount(
        node.need("destination").string(),
        node.maybe_string("type"),
        node.maybe_string("source"),
        strings(node, "options"),
        each(node, "uidMappings", _id_mapping),
        each(node, "gidMappings", _id_mapping),
    )
    if bool(mount.uid_mappings) != bool(mount.gid_mappings):
        raise node.fail("needs both uidMappings and gidMappings, or neither")
    if "\0" in mount.destination + mount.type + mount.source:
        raise node.fail("contains a NUL")
    return mount


def _namespaces(linux: Node) -> tuple[Namespace, ...]:
    found = each(linux, "namespaces", lambda n: Namespace(n.need("type").string(), n.maybe_string("path")))
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
        unsigned(node, "major"),
        unsigned(node, "minor"),
        unsigned(node, "fileMode", 0o666) & 0o7777,
        unsigned(node, "uid"),
        unsigned(node, "gid"),
    )


def _id_mapping(node: Node) -> IdMapping:
    return IdMapping(unsigned(node, "containerID"), unsigned(node, "hostID"), unsigned(node, "size"))
