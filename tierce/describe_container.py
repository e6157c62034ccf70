"""A container as ``docker inspect`` shows it."""

from __future__ import annotations

from typing import Any

from image.errors import InvalidInput
from runner.containers import policy as policies
from runner.containers.log import timestamp
from runner.containers.options import command
from runner.containers.records import Record, Records, read_health
from tierce.container_config import container_config
from tierce.describe import container_document
from tierce.documents import Record as Struct
from tierce.host_config import host_config


def inspect_container(records: Records, record: Record) -> dict[str, Any]:
    """The document of one container."""
    made, state = record.made, record.state
    try:
        words = command(made.options, made.config)
    except InvalidInput:
        words = ()
    config = container_config(records.store, made)
    return Struct({
        "Id": record.id,
        "Created": _time(record.created_s),
        "Path": words[0] if words else "",
        "Args": list(words[1:]),
        "State": _state(records, record),
        "Image": record.image,
        "LogPath": str(records.log(record)) if made.policy.log_driver != "none" else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "HostConfig": host_config(made, config.volumes),
        "GraphDriver": Struct({
            "Name": "overlay2",
            "Data": {"UpperDir": str(records.store.layers.base / made.directory / "diff")},
        }),
        "Mounts": [
            Struct({
                "Type": mount.kind, "Name": mount.source if mount.kind == "volume" else "",
                "Source": mount.source, "Destination": mount.target, "RW": not mount.read_only,
            })
            for mount in made.options.mounts
        ],
        "Config": Struct({
            "Hostname": made.options.hostname or record.id[:12],
            "Domainname": made.options.domainname,
            "AttachStdin": made.options.interactive,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": made.options.tty,
            "OpenStdin": made.options.interactive,
            "StdinOnce": made.options.interactive,
            **container_document(config),
            "Image": made.image_name,
            "StopSignal": policies.stop_signal(made.policy, made.config),
        }),
        "NetworkSettings": Struct({"IPAddress": state.address}),
    })  # fmt: skip


def _state(records: Records, record: Record) -> dict[str, Any]:
    state = record.state
    members = {
        "Status": state.status,
        "Running": state.is_running,
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": state.code,
        "Error": state.error,
        "StartedAt": _time(state.started_s),
        "FinishedAt": _time(state.finished_s),
    }
    health = read_health(records.directory(record.id))
    return Struct(members | ({"Health": Struct(health)} if health else {}))


def _time(moment_s: float) -> str:
    return timestamp(int(moment_s * 10**9)) if moment_s else "0001-01-01T00:00:00Z"
