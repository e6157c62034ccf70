"""The network of one container: the one call that the builder and ``tierce run`` make.

``none`` is a namespace with nothing but loopback; ``host`` is the host's own; ``bridge`` is
one or more bridges, docker's default one or networks that users defined; ``container`` is the
namespace of another container, with its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from types import TracebackType

from image.errors import InvalidInput
from image.paths import Path
from image.value import dataclass, replace
from runner.network import files
from runner.network.files import Dns
from runner.network.identity import WITHOUT_BRIDGE, default_id, id_without_bridge
from runner.network.ports import Port
from runner.runtime import rtnetlink
from runner.runtime.spec import Mount
from runner.runtime.state import Lease
from runner.runtime.user_namespace import entered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, TypeVar

    from runner.network.addresses import Subnet
    from runner.network.bridge import Attachment, Places
    from runner.network.ports import Reservation
    from runner.network.resolver import Resolver

    _T = TypeVar("_T")


class NetworkMode(Enum):
    NONE = "none"
    HOST = "host"
    BRIDGE = "bridge"
    CONTAINER = "container"


def parse_mode(text: str) -> NetworkMode:
    """Docker's ``--network`` where there are no names; "" and ``default`` are bridge. Raises InvalidInput."""
    if text in ("", "default"):
        return NetworkMode.BRIDGE
    if text in (NetworkMode.NONE.value, NetworkMode.HOST.value, NetworkMode.BRIDGE.value):
        return NetworkMode(text)
    raise InvalidInput(f"network {text!r} is not supported: use bridge, host or none")


@dataclass(frozen=True, slots=True)
class Networking:
    """What a container's network is to be. See ``wishes.resolve``, which makes it of what a user said.

    Without ``attachments``, ``bridge`` is the default network. ``name`` is what siblings call the
    container. ``joined`` is the directory of the container whose namespace is shared. ``reserved``
    are subnets that the default network must not take.
    """

    mode: NetworkMode
    attachments: tuple[Attachment, ...] = ()
    name: str = ""
    joined: Path | None = None
    dns: Dns = Dns()  # a frozen value
    reserved: tuple[Subnet, ...] = ()

    @property
    def own_namespace(self) -> bool:
        """Whether the container gets a network namespace of its own."""
        return self.mode in (NetworkMode.NONE, NetworkMode.BRIDGE)


class Connection:
    """What a container needs for its network. Close it after the container has ended."""

    def __init__(
        self,
        network: Networking | NetworkMode,
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
        self.networking = Networking(network) if isinstance(network, NetworkMode) else network
        self.mode = self.networking.mode
        self.warnings: list[str] = []
        self._root = root
        self._directory = lease.directory
        self._reservation: Reservation | None = None
        self._places: Places | None = None
        self._resolver: Resolver | None = None
        if self.mode is NetworkMode.BRIDGE:
            self._take_places(ports)
        else:
            self._write_record()
            if ports:
                self.warnings.append(f"published ports are discarded when using {self.mode.value} network mode")
        self.mounts = self._write_files(hostname, extra_hosts)

    def _take_places(self, ports: Sequence[Port]) -> None:
        from runner.network import bridge  # netlink and firewall: only for those that use them
        from runner.network.endpoints import Record
        from runner.network.ports import Reservation

        wanted = self.networking.attachments or (bridge.Attachment(bridge.default_network(self._root)),)
        outside = [one.network for one in wanted if not one.network.internal]
        if ports and not outside:
            self.warnings.append("published ports are discarded: the container is on internal networks alone")
            ports = ()
        ports = [port.on(outside[0].host_binding) for port in ports] if outside else []
        self._reservation = Reservation(ports, ipv6=bool(outside) and outside[0].ipv6)
        try:
            record = Record(self.networking.name, servers=self.networking.dns.servers)
            if ports:
                record = replace(record, holder=(os.getpid(), *self.descriptors))
            held, reserved = self._reservation.ports, self.networking.reserved
            self._places = self._inside(
                lambda: bridge.Places(self._root, self._directory, wanted, record=record, ports=held, reserved=reserved)
            )
        except BaseException:
            self._reservation.close()
            raise
        self.warnings += self._places.warnings

    def _inside(self, act: Callable[[], _T]) -> _T:
        """``act`` done in the network namespace of the bridges, which for root is this one."""
        return act()

    def _write_record(self) -> None:
        if self.networking.own_namespace:
            from runner.network import endpoints

            endpoints.write(self._directory, endpoints.Record(self.networking.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def own_namespace(self) -> bool:
        """Whether the container gets a network namespace of its own."""
        return self.networking.own_namespace

    @property
    def namespace(self) -> str:
        """The path of the namespace that the container joins; "" when it has its own or the host's."""
        if self.networking.joined is None:
            return ""
        from runner.network import endpoints

        record = endpoints.read(self.networking.joined)
        if record is None or not endpoints.is_alive(record.pid):
            raise InvalidInput("cannot join the network of a container that is not running")
        return f"/proc/{record.pid}/ns/net"

    @property
    def ports(self) -> tuple[Port, ...]:
        """The published ports, with those that the kernel chose."""
        return self._places.record.ports if self._places else ()

    @property
    def address(self) -> str:
        """The first one of IPv4, "" without a bridge."""
        from runner.network.addresses import dotted

        return dotted(self._places.record.endpoints[0].address) if self._places else ""

    @property
    def process(self) -> int:
        """The pid of a child of this process that is the container's network, or 0."""
        return 0

    @property
    def networks(self) -> tuple[tuple[str, str, str], ...]:
        """Name, id and driver of each network that the container is on; none where it shares another's."""
        if self._places is not None:
            return tuple((one.network_name, one.network, "bridge") for one in self._places.record.endpoints)
        name = self.mode.value
        if self.mode is NetworkMode.BRIDGE:
            return ((name, default_id(self._root), name),)
        if self.mode is NetworkMode.CONTAINER:
            return ()
        return ((name, id_without_bridge(self._root, name), WITHOUT_BRIDGE[name][0]),)

    @property
    def descriptors(self) -> list[int]:
        """What holds the published ports: for the process that watches the container."""
        return self._reservation.descriptors if self._reservation else []

    @property
    def requests(self) -> tuple[bytes, ...]:
        """For ``launch``: what is done inside the container's namespace."""
        if self._places is not None:
            return self._places.requests
        return (rtnetlink.link_up(rtnetlink.LOOPBACK_INDEX),) if self.own_namespace else ()

    @property
    def sysctl(self) -> dict[str, str]:
        """Where a network has no IPv6, docker takes the link-local address away too."""
        if self._places is None:
            return {}
        return {
            f"net.ipv6.conf.{one.interface}.disable_ipv6": "0" if one.address6 else "1"
            for one in self._places.record.endpoints
        }

    def attach(self, pid: int) -> None:
        """For ``launch``: join the namespace of the process."""
        if (places := self._places) is not None:
            self._inside(lambda: places.attach(pid))
        elif self.own_namespace:
            from runner.network import endpoints

            endpoints.write(self._directory, endpoints.Record(self.networking.name, pid))

    @property
    def resolver(self) -> Resolver | None:
        """What answers the container's questions for names: to be polled and served by whoever watches it.

        None without a bridge. Known after ``attach``.
        """
        if self._resolver is None and self._places is not None and self._places.name_sockets:
            from runner.network.resolver import Resolver

            self._resolver = Resolver(str(self._directory), self._places.name_sockets)
        return self._resolver

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None
        elif self._places is not None:
            for fd in self._places.name_sockets:
                os.close(fd)
        if self._places is not None:
            self._inside(self._places.close)
            self._places = None
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    # --- files ----------------------------------------------------------------------------

    def _write_files(self, hostname: str, extra_hosts: Sequence[tuple[str, str]]) -> tuple[Mount, ...]:
        if self.networking.joined is not None:
            return _file_mounts(self.networking.joined)
        contents = {
            "hosts": self._hosts(hostname, extra_hosts),
            "hostname": f"{hostname}\n",
            "resolv.conf": self._resolv_conf(),
        }
        for name, text in contents.items():
            (self._directory / name).write_text(text)
            os.chmod(self._directory / name, 0o644)  # whatever the umask: every user of the container reads them
        return _file_mounts(self._directory)

    def _hosts(self, hostname: str, extra: Sequence[tuple[str, str]]) -> str:
        added = "".join(f"{self._host_address(address)}\t{name}\n" for name, address in extra)
        if self.mode is NetworkMode.HOST:
            return _read("/etc/hosts") + added
        if self._places is None:
            return files.hosts(hostname) + added
        from runner.network.addresses import V6, dotted, spelled

        found = self._places.record.endpoints
        known = [dotted(one.address) for one in found if one.address]
        known += [spelled(one.address6, V6) for one in found if one.address6]
        return files.hosts(hostname, *known) + added

    def _host_address(self, address: str) -> str:
        if address != "host-gateway":
            return address
        if self._places is None:
            return "127.0.0.1"
        pools = self._places.networks[0].pools
        return pools[0].gateway_text

    def _resolv_conf(self) -> str:
        wanted = self.networking
        host = _read(files.RESOLV_CONF)
        if self.mode is NetworkMode.HOST:
            return host if wanted.dns == Dns() else files.with_wishes(host, wanted.dns)
        if files.uses_resolved_stub(host) and os.path.exists(files.RESOLVED_UPSTREAM):
            host = _read(files.RESOLVED_UPSTREAM)
        if self._places is not None and any(network.resolves for network in self._places.networks):
            return files.for_resolver(host, wanted.dns)
        if wanted.dns != Dns():
            host = files.with_wishes(host, wanted.dns)
            if wanted.dns.servers:
                return host
        chosen = files.resolv_conf(host)
        if chosen.warning and self.mode is NetworkMode.BRIDGE:
            self.warnings.append(chosen.warning)
        return chosen.text


def connect(
    network: Networking | NetworkMode,
    *,
    root: Path,
    lease: Lease,
    hostname: str,
    ports: Sequence[Port] = (),
    extra_hosts: Sequence[tuple[str, str]] = (),
) -> Connection:
    """The connection that this process can make: an ordinary user's has no bridge. See ``Connection``."""
    made: type[Connection] = Connection
    if entered() is not None:
        from runner.network.rootless import UserConnection

        made = UserConnection
    return made(network, root=root, lease=lease, hostname=hostname, ports=ports, extra_hosts=extra_hosts)


def _file_mounts(directory: Path) -> tuple[Mount, ...]:
    names = ("hosts", "hostname", "resolv.conf")
    return tuple(Mount(f"/etc/{name}", "bind", str(directory / name), ("bind", "rprivate")) for name in names)


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""
