"""The network of one container, by mode: the one call that the builder and ``tierce run`` make.

``none`` is a namespace with nothing but loopback; ``host`` is the host's own; ``bridge`` is
docker's default: an address on a shared bridge, translated, with published ports.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from image.errors import InvalidInput
from runner.network import files
from runner.network.ports import Port
from runner.runtime import rtnetlink
from runner.runtime.spec import Mount
from runner.runtime.state import Lease

if TYPE_CHECKING:
    from runner.network.bridge import Endpoint


class NetworkMode(Enum):
    NONE = "none"
    HOST = "host"
    BRIDGE = "bridge"


def parse_mode(text: str) -> NetworkMode:
    """Docker's ``--network``; "" and ``default`` are bridge. Raises InvalidInput."""
    if text in ("", "default"):
        return NetworkMode.BRIDGE
    try:
        return NetworkMode(text)
    except ValueError:
        raise InvalidInput(f"network {text!r} is not supported: use bridge, host or none") from None


class Connection:
    """What a container needs for its network. Close it after the container has ended."""

    def __init__(
        self,
        mode: NetworkMode,
        *,
        root: Path,
        lease: Lease,
        hostname: str,
        ports: Sequence[Port] = (),
        extra_hosts: Sequence[tuple[str, str]] = (),
    ) -> None:
        """``root`` is the runtime directory, ``lease`` the container's; ``ports`` are to be published.

        ``extra_hosts`` are names and addresses for /etc/hosts; the address ``host-gateway`` is the
        host's on the bridge.

        Raises PortInUse, Conflict or KernelError, leaving nothing behind.
        """
        self.mode = mode
        self._endpoint: Endpoint | None = None
        if mode is NetworkMode.BRIDGE:
            from runner.network.bridge import Endpoint  # netlink and firewall: only for those that use them

            self._endpoint = Endpoint(root, lease, ports)
        self.address = ""
        self.warnings: list[str] = list(self._endpoint.warnings) if self._endpoint else []
        if self._endpoint is not None:
            from runner.network.addresses import dotted

            self.address = dotted(self._endpoint.address)
        elif ports:
            self.warnings.append(f"published ports are discarded when using {mode.value} network mode")
        self.mounts = self._write_files(lease.directory, hostname, extra_hosts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def own_namespace(self) -> bool:
        """Whether the container gets a network namespace."""
        return self.mode is not NetworkMode.HOST

    @property
    def ports(self) -> tuple[Port, ...]:
        """The published ports, with those that the kernel chose."""
        return self._endpoint.ports if self._endpoint else ()

    @property
    def requests(self) -> tuple[bytes, ...]:
        """For ``launch``: what is done inside the container's namespace."""
        if self._endpoint is not None:
            return self._endpoint.requests
        return (rtnetlink.link_up(rtnetlink.LOOPBACK_INDEX),) if self.own_namespace else ()

    def attach(self, pid: int) -> None:
        """For ``launch``: join the namespace of the process."""
        if self._endpoint is not None:
            self._endpoint.attach(pid)

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _write_files(self, directory: Path, hostname: str, extra_hosts: Sequence[tuple[str, str]]) -> tuple[Mount, ...]:
        hosts = _read("/etc/hosts") if self.mode is NetworkMode.HOST else files.hosts(hostname, self.address)
        hosts += "".join(f"{self._host_address(address)}\t{name}\n" for name, address in extra_hosts)
        contents = {
            "hosts": hosts,
            "hostname": f"{hostname}\n",
            "resolv.conf": self._resolv_conf(),
        }
        for name, text in contents.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o644)  # whatever the umask: every user of the container reads them
        return tuple(Mount(f"/etc/{name}", "bind", str(directory / name), ("bind", "rprivate")) for name in contents)

    def _host_address(self, address: str) -> str:
        if address != "host-gateway":
            return address
        if self._endpoint is None:
            return "127.0.0.1"
        from runner.network.addresses import dotted

        return dotted(self._endpoint.subnet.gateway)

    def _resolv_conf(self) -> str:
        host = _read(files.RESOLV_CONF)
        if self.mode is NetworkMode.HOST:
            return host
        if files.uses_resolved_stub(host) and os.path.exists(files.RESOLVED_UPSTREAM):
            host = _read(files.RESOLVED_UPSTREAM)
        chosen = files.resolv_conf(host)
        if chosen.warning and self.mode is NetworkMode.BRIDGE:
            self.warnings.append(chosen.warning)
        return chosen.text


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""
