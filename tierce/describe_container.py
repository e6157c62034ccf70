"""A container as ``docker inspect`` shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from image.errors import InvalidInput
from runner.containers import policy as policies
from runner.containers.log import timestamp
from runner.containers.options import command
from runner.containers.records import Made, Record, Records, read_health
from runner.volumes.request import MountRequest
from store.store import Store
from tierce.container_config import container_config
from tierce.describe import container_document
from tierce.documents import NIL_LIST
from tierce.documents import Record as Struct
from tierce.host_config import host_config
from tierce.images import image_id
from tierce.network_settings import network_settings


def inspect_container(records: Records, record: Record, root: Path, *, sized: bool = False) -> dict[str, Any]:
    """The document of one container. ``root`` is the runtime directory; ``sized`` counts its files."""
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
        "Image": image_id(records.store, record.image),
        "ResolvConfPath": _file(root, record, "resolv.conf"),
        "HostnamePath": _file(root, record, "hostname"),
        "HostsPath": _file(root, record, "hosts"),
        "LogPath": str(records.log(record)) if made.policy.log_driver != "none" else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": NIL_LIST,
        "HostConfig": host_config(made, config.volumes),
        "GraphDriver": Struct({"Name": "overlay2", "Data": _directories(records.store, made)}),
        **(_sizes(records.store, record) if sized else {}),
        "Mounts": [
            _mount(mount, records.store.root) for mount in made.options.mounts if mount.kind != "tmpfs"
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
        "NetworkSettings": network_settings(records, record, root, config.exposed_ports),
    })  # fmt: skip


def _file(root: Path, record: Record, name: str) -> str:
    """A generated file of /etc, which a running container has."""
    return str(root / "containers" / record.id / name) if record.state.is_running else ""


def _directories(store: Store, made: Made) -> dict[str, str]:
    """Where its layers and its own files are. They are mounted in the container alone, so nothing is in MergedDir."""
    own = store.layers.base / made.directory
    return {
        "LowerDir": ":".join(str(store.layers.base / name / "diff") for name in made.layers),
        "MergedDir": str(own / "merged"),
        "UpperDir": str(own / "diff"),
        "WorkDir": str(own / "work"),
    }


def _sizes(store: Store, record: Record) -> dict[str, int]:
    """Bytes: its own files, and all with those of the image."""
    from tierce.usage import container_size, layers_size

    own = container_size(store, record)
    return {"SizeRw": own, "SizeRootFs": own + layers_size(store, record.made.layers)}


def _mount(mount: MountRequest, root: Path) -> Struct:
    volume = mount.kind == "volume"
    source = str(root / "volumes" / mount.source / "_data") if volume else mount.source
    return Struct({
        "Type": mount.kind, **({"Name": mount.source} if volume else {}), "Source": source, "Destination": mount.target,
        **({"Driver": "local"} if volume else {}), "Mode": mount.mode, "RW": not mount.read_only,
        "Propagation": "" if volume else mount.propagation or "rprivate",
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
