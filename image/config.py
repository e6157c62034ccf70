"""The image configuration: how to run an image, what its layers are, how it came to be.

Spec: image-spec "OCI Image Configuration", with Docker's members Healthcheck, OnBuild,
Shell and ArgsEscaped, which are kept in both formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from image.descriptor import no_annotations
from image.digest import DiffID
from image.document import Node, decode, encode
from image.errors import InvalidConfig, InvalidDigest
from image.platform import Platform
from image.value import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How to ask a container whether it is well. Durations in nanoseconds; 0 means inherit."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """The ``config`` member. ``None`` for a command means unset, ``()`` means emptied."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    args_escaped: bool = False

    def env_map(self) -> dict[str, str]:
        """The environment by name, in order."""
        return {name: value for name, _, value in (item.partition("=") for item in self.env)}


@dataclass(frozen=True, slots=True)
class History:
    """One step of how the image came to be. ``created`` is RFC 3339, or ""."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A whole configuration document. ``created`` is RFC 3339, or "" when unknown."""

    platform: Platform
    config: ContainerConfig = ContainerConfig()
    diff_ids: tuple[DiffID, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""

    def encode(self, members: Mapping[str, object] | None = None) -> bytes:
        """The document; the same value gives the same bytes. ``members`` are added at its end."""
        return encode({
            "created": self.created or None,
            "author": self.author or None,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "os.version": self.platform.os_version or None,
            "os.features": list(self.platform.os_features) or None,
            "variant": self.platform.variant or None,
            "config": _encode_container(self.config),
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]},
            "history": [_encode_history(entry) for entry in self.history],
            **(members or {}),
        })  # fmt: skip

    @classmethod
    def decode(cls, raw: bytes) -> ImageConfig:
        """A configuration from outside. Raises InvalidConfig with the field's path."""
        document = decode(raw, InvalidConfig)
        container = document.get("config")
        rootfs = document.need("rootfs")
        diff_ids = rootfs.get("diff_ids")
        history = document.get("history")
        features = document.get("os.features")
        return cls(
            platform=Platform(
                document.maybe_string("os") or "linux",
                document.maybe_string("architecture"),
                document.maybe_string("variant"),
                document.maybe_string("os.version"),
                features.strings() if features else (),
            ),
            config=_decode_container(container) if container else ContainerConfig(),
            diff_ids=tuple(_decode_diff_id(item) for item in diff_ids.items()) if diff_ids else (),
            history=tuple(_decode_history(item) for item in history.items()) if history else (),
            created=document.maybe_string("created"),
            author=document.maybe_string("author"),
        )


def _encode_container(config: ContainerConfig) -> dict[str, Any]:
    def command(words: tuple[str, ...] | None) -> list[str] | None:
        return None if words is None else list(words)

    members: dict[str, Any] = {
        "User": config.user or None,
        "ExposedPorts": {port: {} for port in sorted(config.exposed_ports)} or None,
        "Env": list(config.env) or None,
        "Entrypoint": command(config.entrypoint),
        "Cmd": command(config.cmd),
        "Volumes": {path: {} for path in sorted(config.volumes)} or None,
        "WorkingDir": config.working_dir or None,
        "Labels": dict(sorted(config.labels.items())) or None,
        "StopSignal": config.stop_signal or None,
        "ArgsEscaped": config.args_escaped or None,
        "Healthcheck": _encode_healthcheck(config.healthcheck) if config.healthcheck else None,
        "OnBuild": list(config.on_build) or None,
        "Shell": list(config.shell) or None,
    }
    return {key: value for key, value in members.items() if value is not None}


def _encode_healthcheck(check: Healthcheck) -> dict[str, Any]:
    members = {
        "Test": list(check.test) or None,
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }
    return {key: value for key, value in members.items() if value}


def _encode_history(entry: History) -> dict[str, Any]:
    members = {
        "created": entry.created,
        "created_by": entry.created_by,
        "comment": entry.comment,
        "author": entry.author,
        "empty_layer": entry.empty_layer,
    }
    return {key: value for key, value in members.items() if value}


def _decode_container(node: Node) -> ContainerConfig:
    def strings(key: str) -> tuple[str, ...]:
        member = node.get(key)
        return member.strings() if member else ()

    def command(key: str) -> tuple[str, ...] | None:
        member = node.get(key)
        return member.strings() if member else None

    def names(key: str) -> tuple[str, ...]:
        member = node.get(key)
        return member.keys() if member else ()

    labels = node.get("Labels")
    healthcheck = node.get("Healthcheck")
    escaped = node.get("ArgsEscaped")
    return ContainerConfig(
        user=node.maybe_string("User"),
        exposed_ports=names("ExposedPorts"),
        env=strings("Env"),
        entrypoint=command("Entrypoint"),
        cmd=command("Cmd"),
        volumes=names("Volumes"),
        working_dir=node.maybe_string("WorkingDir"),
        labels=MappingProxyType(labels.string_map()) if labels else no_annotations(),
        stop_signal=node.maybe_string("StopSignal"),
        healthcheck=_decode_healthcheck(healthcheck) if healthcheck else None,
        on_build=strings("OnBuild"),
        shell=strings("Shell"),
        args_escaped=escaped.boolean() if escaped else False,
    )


def _decode_healthcheck(node: Node) -> Healthcheck:
    def integer(key: str) -> int:
        member = node.get(key)
        return member.integer() if member else 0

    test = node.get("Test")
    return Healthcheck(
        test.strings() if test else (),
        integer("Interval"),
        integer("Timeout"),
        integer("StartPeriod"),
        integer("StartInterval"),
        integer("Retries"),
    )


def _decode_history(node: Node) -> History:
    empty = node.get("empty_layer")
    return History(
        created=node.maybe_string("created"),
        created_by=node.maybe_string("created_by"),
        comment=node.maybe_string("comment"),
        author=node.maybe_string("author"),
        empty_layer=empty.boolean() if empty else False,
    )


def _decode_diff_id(node: Node) -> DiffID:
    try:
        return DiffID(node.string())
    except InvalidDigest as error:
        raise node.fail(str(error)) from error
