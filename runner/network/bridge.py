"""The bridge that containers share: made by the first, removed by the last.

    <root>/bridge                   the bridge's subnet
    <root>/containers/ID/network    a container's address, then its published ports

A container is on the bridge while its lease is locked; addresses of dead ones are free. Every
change is made under the lock of the runtime directory and leaves firewall, bridge and files
as they must be for the containers that then live.

Two runtime directories have two bridges and two tables, so that they don't disturb each other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from image.errors import KernelError
from runner.network import addresses, firewall, link
from runner.network.addresses import Subnet
from runner.network.firewall import Published
from runner.network.ports import Port, Reservation
from runner.runtime import rtnetlink, state
from runner.runtime.state import Lease

MTU = 1500
_STANDARD_ROOT = Path("/run/tierce")
_PEER = "eth0"
_PEER_INDEX = 100
"""A number that no interface of a fresh namespace has: modules add tunnels from 2 on."""


def bridge_name(root: Path) -> str:
    """``tierce0`` for the standard runtime directory; another's follows from its path."""
    return "tierce0" if root == _STANDARD_ROOT else f"tierce{crc32(bytes(root)):08x}"


def table_name(root: Path) -> str:
    """The nftables table, likewise."""
    return "tierce" if root == _STANDARD_ROOT else f"tierce_{crc32(bytes(root)):08x}"


class Endpoint:
    """One container's place on the bridge."""

    def __init__(self, root: Path, lease: Lease, ports: Sequence[Port]) -> None:
        """Take an address and the ports, and have the bridge ready. Raises PortInUse, Conflict, KernelError."""
        self._root = root
        self._lease = lease
        self._reservation = Reservation(ports)
        self.ports = self._reservation.ports
        self.warnings: tuple[str, ...] = ()
        try:
            with state.locked(root):
                self.subnet, self._bridge_index = self._ready_bridge()
                others = list(_published(root, apart_from=lease.directory))
                self.address = addresses.choose_address(self.subnet, [other.address for other in others])
                own = Published(self.address, self.ports)
                _write_record(lease.directory, own)
                if self.ports or not others:
                    firewall.apply(firewall.ruleset(table_name(root), bridge_name(root), self.subnet, [*others, own]))
        except BaseException:
            self.close()
            raise

    def _ready_bridge(self) -> tuple[Subnet, int]:
        subnet = _recorded_subnet(self._root)
        index = link.link_index(bridge_name(self._root))
        if subnet is None or index is None:
            subnet, index = _make_bridge(self._root)
        warning = firewall.open_forward(bridge_name(self._root))  # each time: docker may have started since
        self.warnings = (warning,) if warning else ()
        return subnet, index

    @property
    def requests(self) -> tuple[bytes, ...]:
        """For inside the container: loopback up, the address, the way out."""
        address, broadcast = addresses.packed(self.address), addresses.packed(self.subnet.broadcast)
        return (
            rtnetlink.link_up(rtnetlink.LOOPBACK_INDEX),
            rtnetlink.new_address(_PEER_INDEX, address, self.subnet.prefix, broadcast),
            rtnetlink.link_up(_PEER_INDEX),
            rtnetlink.default_route(_PEER_INDEX, addresses.packed(self.subnet.gateway)),
        )

    def attach(self, pid: int) -> None:
        """A cable from the bridge into the network namespace of the process.

        It goes away with that namespace: removing it by hand would take thirty milliseconds.
        """
        number = (int.from_bytes(os.urandom(4), "big") >> 2) + (
            1 << 20
        )  # far from the indexes that the kernel gives out
        link.request(
            rtnetlink.new_veth(
                (f"tc{number:x}", number),
                (_PEER, _PEER_INDEX),
                master=self._bridge_index,
                pid=pid,
                mac=addresses.mac(self.address),
                mtu=MTU,
            )
        )

    def close(self) -> None:
        """Give address and ports back; the last container takes the bridge with it. Idempotent."""
        record = self._lease.directory / "network"
        with state.locked(self._root):
            record.unlink(missing_ok=True)
            _settle(self._root, rules_changed=bool(self.ports))
        self._reservation.close()


def _make_bridge(root: Path) -> tuple[Subnet, int]:
    """Anew, on a subnet that nothing on this host uses now."""
    name = bridge_name(root)
    _remove_bridge(name)
    subnet = addresses.choose_subnet(link.routes())
    gateway = addresses.packed(subnet.gateway)
    link.request(rtnetlink.new_bridge(name, addresses.mac(subnet.gateway), MTU))
    index = link.link_index(name) or 0
    link.request(
        rtnetlink.new_address(index, gateway, subnet.prefix, addresses.packed(subnet.broadcast)),
        rtnetlink.link_up(index),
    )
    _write_setting("net/ipv4/ip_forward", "1")  # stays on, as docker leaves it: others may count on it by then
    _write_setting(f"net/ipv4/conf/{name}/route_localnet", "1")
    (root / "bridge").write_text(f"{subnet}\n")
    return subnet, index


def _write_setting(name: str, value: str) -> None:
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise KernelError("network", "write", error.errno or 0, str(path)) from error


def _settle(root: Path, *, rules_changed: bool) -> None:
    """Bring firewall and bridge to what the living containers need. Call it while locked."""
    remaining = list(_published(root))
    subnet = _recorded_subnet(root)
    if remaining and subnet is not None:
        if rules_changed:
            firewall.apply(firewall.ruleset(table_name(root), bridge_name(root), subnet, remaining))
    elif subnet is not None or link.link_index(bridge_name(root)) is not None:
        firewall.close_forward(bridge_name(root))
        firewall.remove(table_name(root))
        _remove_bridge(bridge_name(root))
        (root / "bridge").unlink(missing_ok=True)


def _remove_bridge(name: str) -> None:
    try:
        link.request(rtnetlink.delete_link(name))
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise


def settle(root: Path) -> None:
    """Remove what killed processes have left of the network. For ``sweep``."""
    with state.locked(root):
        _settle(root, rules_changed=True)


# --- records ----------------------------------------------------------------------------


def _recorded_subnet(root: Path) -> Subnet | None:
    with suppress(OSError):
        return addresses.parse_subnet((root / "bridge").read_text().strip())
    return None


def _write_record(directory: Path, own: Published) -> None:
    lines = [addresses.dotted(own.address)]
    lines += [f"{port.protocol} {port.host_address} {port.host_port} {port.container_port}" for port in own.ports]
    (directory / "network").write_text("\n".join(lines) + "\n")


def _published(root: Path, *, apart_from: Path | None = None) -> Iterator[Published]:
    """The record of each living container that is on the bridge."""
    for directory in state.live(root):
        if directory == apart_from:
            continue
        try:
            first, *rest = (directory / "network").read_text().splitlines()
        except (OSError, ValueError):
            continue  # on another kind of network
        address = addresses.parse_address(first)
        if address is not None:
            yield Published(address, tuple(_port(line) for line in rest))


def _port(line: str) -> Port:
    protocol, host_address, host_port, container_port = line.split()
    return Port(int(container_port), int(host_port), host_address, protocol)
