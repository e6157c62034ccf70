"""A ``Spec`` as ``config.json``. ``config_json`` reads it.

Spec: runtime-spec 1.2.
"""

from __future__ import annotations

from image.document import encode
from image.errors import InvalidInput
from runner.runtime.config_limits import THROTTLES
from runner.runtime.spec import (
    Device,
    DockerSeccomp,
    Hook,
    Hooks,
    IdMapping,
    Mount,
    NamedUser,
    Process,
    Resources,
    Scheduler,
    Spec,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
                for name, kind in THROTTLES.items()
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
