"""Bridges of the host: each is made by the first container on it and removed with the last.

    <root>/bridge-ID                a network that is up, as it was when it came up
    <root>/.bridge-ID               one that was being made when its maker was killed

Every change is made under the lock of the runtime directory and leaves firewall, bridges and
files as they must be for the containers that then live. So no daemon is needed after a reboot,
and nothing is left of a network that nobody uses.

Two runtime directories have default bridges of their own, which don't disturb each other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from zlib import crc32

from image.errors import Conflict, InvalidInput, KernelError
from image.paths import Path
from image.value import dataclass, replace
from runner.network import addresses, endpoints, firewall, link, namespace, networks, resolver
from runner.network.addresses import V4, V6, Subnet, packed
from runner.network.endpoints import Endpoint, Record
from runner.network.firewall import Published
from runner.network.identity import default_id
from runner.network.lingering import linger
from runner.network.networks import Network, Pool
from runner.network.ports import Port
from runner.network.removal import remove_beside
from runner.runtime import rtnetlink, state
from runner.runtime.user_namespace import entered

_STANDARD_ROOT = Path("/run/tierce")
_UP, _MAKING = "bridge-", ".bridge-"
_FIRST_INDEX = 100
"""A number that no interface of a fresh namespace has: modules add tunnels from 2 on."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One network that a container is to be on. No address: the lowest free one."""

    network: Network
    aliases: tuple[str, ...] = ()
    address: str = ""
    address6: str = ""
    mac: str = ""


def default_network(root: Path) -> Network:
    """The network of containers that name none. Its subnet is chosen when it comes up."""
    options = (("com.docker.network.bridge.name", bridge_name(root)),)
    up = networks_up(root).get(default_id(root))
    return up or Network(networks.DEFAULT, default_id(root), (), options=options)


def bridge_name(root: Path) -> str:
    """The default bridge: ``tierce0`` for the standard runtime directory; another's follows from its path."""
    return "tierce0" if root == _STANDARD_ROOT else f"tierce{crc32(bytes(root)):08x}"


# --- a container's places -----------------------------------------------------------------


def place(
    root: Path, attachment: Attachment, record: Record, *, reserved: Iterable[Subnet] = ()
) -> tuple[Network, Endpoint, list[str]]:
    """Bring the network up and choose an address on it. Call it while locked, then write the record.

    Returns the network as it is up, the endpoint and warnings. Raises Conflict, InvalidInput, KernelError.
    """
    network = _bring_up(root, attachment.network, reserved)
    others = [other for _, other in endpoints.living(root)]
    taken = [place for other in others if (place := other.on(network.id)) is not None]
    numbers = {one.interface for one in record.endpoints}
    number = next(number for number in range(len(numbers) + 1) if f"eth{number}" not in numbers)
    address = _choose(network, V4, attachment.address, {one.address for one in taken})
    endpoint = Endpoint(
        network.id,
        f"eth{number}",
        _FIRST_INDEX + number,
        address,
        _choose(network, V6, attachment.address6, {one.address6 for one in taken}),
        parse_mac(attachment.mac) if attachment.mac else addresses.mac(address),
        attachment.aliases if network.resolves else (),
        network.name,
        network.internal,
    )
    warning = firewall.open_forward(network.bridge, ipv6=network.ipv6)  # docker may have started since
    return network, endpoint, [warning] if warning else []


def _choose(network: Network, bits: int, wanted: str, taken: set[int]) -> int:
    """0 when the network has nothing of this family."""
    pool = network.pool(bits)
    if wanted:
        return _chosen_by_user(network, pool, wanted, taken)
    if pool is None:
        return 0
    return addresses.choose_address(pool.subnet, {*taken, pool.gateway}, within=pool.ip_range)


def _chosen_by_user(network: Network, pool: Pool | None, wanted: str, taken: set[int]) -> int:
    address = addresses.parse_address6(wanted) if ":" in wanted else addresses.parse_address(wanted)
    if address is None:
        raise InvalidInput(f"invalid address {wanted!r} for network {network.name}")
    if pool is None or address not in pool.subnet:
        raise InvalidInput(f"network {network.name} has no subnet that contains {wanted}")
    if address in taken or address == pool.gateway:
        raise Conflict(f"address {wanted} of network {network.name} is already in use")
    return address


def parse_mac(text: str) -> bytes:
    """Six bytes. Raises InvalidInput, also for an address of a group."""
    with suppress(ValueError):
        mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
        if len(mac) == 6 and not mac[0] & 1:
            return mac
    raise InvalidInput(f"invalid MAC address {text!r}: write six bytes such as 02:42:ac:11:00:02")


def inside(network: Network, endpoint: Endpoint, *, gateway: bool, ipv6_gateway: bool) -> Iterator[bytes]:
    """rtnetlink requests for the container's namespace: the addresses, the way out."""
    four, six = network.pool(V4), network.pool(V6)
    if four is not None:
        address, broadcast = packed(endpoint.address), packed(four.subnet.broadcast)
        yield rtnetlink.new_address(endpoint.index, address, four.subnet.prefix, broadcast)
    if six is not None and endpoint.address6:
        yield rtnetlink.new_address(endpoint.index, packed(endpoint.address6, V6), six.subnet.prefix)
    yield rtnetlink.link_up(endpoint.index)
    if gateway and four is not None:
        yield rtnetlink.default_route(endpoint.index, packed(four.gateway))
    if ipv6_gateway and six is not None and endpoint.address6:
        yield rtnetlink.default_route(endpoint.index, packed(six.gateway, V6))


def plug(network: Network, endpoint: Endpoint, pid: int) -> None:
    """A cable from the bridge into the network namespace of the process.

    It goes away with that namespace: removing it by hand would take thirty milliseconds.
    """
    index = (int.from_bytes(os.urandom(4), "big") >> 2) + (1 << 20)  # far from those that the kernel gives out
    requests = [
        rtnetlink.new_veth(
            (f"tc{index:x}", index),
            (endpoint.interface, endpoint.index),
            master=link.link_index(network.bridge) or 0,
            pid=pid,
            mac=endpoint.mac,
            mtu=network.mtu,
        )
    ]
    if not network.icc:
        requests.append(rtnetlink.isolated_port(index))
    link.request(*requests)


class Places:
    """Every place of one container, from its start to its end."""

    def __init__(
        self,
        root: Path,
        directory: Path,
        attachments: Sequence[Attachment],
        *,
        record: Record = Record(),  # a frozen value
        ports: Sequence[Port] = (),
        reserved: Iterable[Subnet] = (),
    ) -> None:
        """Take an address on each network, with ``ports`` published from the first that leads outside.

        Raises Conflict, InvalidInput, KernelError; close it then.
        """
        self._root = root
        self._directory = directory
        self.networks: list[Network] = []
        self.warnings: list[str] = []
        self.record = record
        self.name_sockets: list[int] = []
        with state.locked(root):
            try:
                for attachment in attachments:
                    self._add(attachment, ports, reserved)
                endpoints.write(directory, self.record)
                for network in self.networks:
                    if (one := self.record.on(network.id)) is not None and one.ports:
                        refresh(root, network)
            except BaseException:
                (directory / endpoints.FILE).unlink(missing_ok=True)
                settle_locked(root)
                raise

    def _add(self, attachment: Attachment, ports: Sequence[Port], reserved: Iterable[Subnet]) -> None:
        network, endpoint, warnings = place(self._root, attachment, self.record, reserved=reserved)
        if ports and not network.internal and not self.record.ports:
            endpoint = replace(endpoint, ports=tuple(ports))
        self.networks.append(network)
        self.warnings += warnings
        self.record = replace(self.record, endpoints=(*self.record.endpoints, endpoint))

    @property
    def requests(self) -> tuple[bytes, ...]:
        """For inside the container: loopback up, then each interface."""
        found = [rtnetlink.link_up(rtnetlink.LOOPBACK_INDEX)]
        outside = {bits: gateway_network(self.networks, bits) for bits in (V4, V6)}
        for network, endpoint in zip(self.networks, self.record.endpoints, strict=True):
            found += inside(network, endpoint, gateway=network is outside[V4], ipv6_gateway=network is outside[V6])
        return tuple(found)

    def attach(self, pid: int) -> None:
        """Join the network namespace of the process, and say whose it is."""
        for network, endpoint in zip(self.networks, self.record.endpoints, strict=True):
            plug(network, endpoint, pid)
        self.name_sockets = namespace.within(pid, self._open_names)
        self.record = replace(self.record, pid=pid, resolver=resolver.ports_of(self.name_sockets))
        endpoints.write(self._directory, self.record)

    def _open_names(self) -> list[int]:
        link.request(rtnetlink.link_up(rtnetlink.LOOPBACK_INDEX))  # else an address of it is none to bind to
        sockets = resolver.open_sockets()
        if any(network.resolves for network in self.networks):
            firewall.apply(resolver.redirection(*resolver.ports_of(sockets)))
        return sockets

    def close(self) -> None:
        """Give the places back. Idempotent."""
        leave(self._root, self._directory)


def gateway_network(of: Iterable[Network], bits: int) -> Network | None:
    """The network whose gateway is the way out: the first that leads outside."""
    return next((network for network in of if not network.internal and network.pool(bits) is not None), None)


def leave(root: Path, directory: Path) -> None:
    """Forget the container's places; what nobody uses any more goes too, a bridge soon after. Idempotent."""
    with state.locked(root) as lock:
        record = endpoints.read(directory)
        if record is None:
            return
        (directory / endpoints.FILE).unlink(missing_ok=True)
        settle_locked(root, changed=[one.network for one in record.endpoints if one.ports], asked=record, lock=lock)


# --- networks that are up -----------------------------------------------------------------


def _bring_up(root: Path, network: Network, reserved: Iterable[Subnet]) -> Network:
    """The network as it is up, made now when it was not."""
    up = networks_up(root).get(network.id)
    if up is not None and link.link_index(up.bridge) is not None:
        return up
    _clear_remains(root, network)
    routes = link.routes()
    if not network.pools:
        subnet = addresses.choose_subnet([*routes, *reserved])
        network = replace(network, pools=(Pool(subnet, subnet.gateway),))
    try:
        check_routes(network, routes)
    except Conflict:
        drop_lingering_locked(root)  # perhaps it was in its way
        check_routes(network, link.routes())
    text = networks.encode(network)
    (root / f"{_MAKING}{network.id}").write_text(text)
    firewall.establish(network, _published(root, network))
    _make_bridge(network)
    (root / f"{_MAKING}{network.id}").rename(root / f"{_UP}{network.id}")
    return network


def check_routes(network: Network, routes: Iterable[Subnet]) -> None:
    """Raises Conflict when a network of this host lies in one of the subnets. A wider route may be overridden."""
    for pool in network.pools:
        for route in routes:
            if pool.subnet.overlaps(route) and route.prefix >= pool.subnet.prefix:
                raise Conflict(f"network {network.name}: this host already uses {route}, which overlaps {pool.subnet}")


def _clear_remains(root: Path, network: Network) -> None:
    """Of a bridge that was ours. An interface of the user's by this name is not touched. Raises Conflict."""
    remains = [root / f"{start}{network.id}" for start in (_MAKING, _UP)]
    ours = network.bridge in (f"br-{network.id[:12]}", bridge_name(root)) or any(file.exists() for file in remains)
    if ours:
        _remove_bridge(network.bridge)
    elif link.link_index(network.bridge) is not None:
        raise Conflict(f"network {network.name}: the interface {network.bridge} exists and is not ours")
    for file in remains:
        file.unlink(missing_ok=True)


def _make_bridge(network: Network) -> None:
    four = network.pool(V4)
    name = network.bridge
    link.request(rtnetlink.new_bridge(name, addresses.mac(four.gateway if four else crc32(name.encode())), network.mtu))
    index = link.link_index(name) or 0
    requests = []
    for pool in network.pools:
        bits = pool.subnet.bits
        broadcast = packed(pool.subnet.broadcast) if bits == V4 else b""
        requests.append(rtnetlink.new_address(index, packed(pool.gateway, bits), pool.subnet.prefix, broadcast))
    if network.ipv6:
        _write_setting(f"net/ipv6/conf/{name}/accept_ra", "0")
        _write_setting(f"net/ipv6/conf/{name}/disable_ipv6", "0")
        _forward_ipv6()
    link.request(*requests, rtnetlink.link_up(index))
    _write_setting("net/ipv4/ip_forward", "1")  # stays on, as docker leaves it: others may count on it by then
    _write_setting(f"net/ipv4/conf/{name}/route_localnet", "1")


def _forward_ipv6() -> None:
    """A host that forwards stops to heed router advertisements, unless an interface is told to go on."""
    if Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1":
        return
    for interface in os.listdir("/proc/sys/net/ipv6/conf"):
        name = f"net/ipv6/conf/{interface}/accept_ra"
        with suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == "1":
                _write_setting(name, "2")
    _write_setting("net/ipv6/conf/all/forwarding", "1")


def _write_setting(name: str, value: str) -> None:
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise KernelError("network", "write", error.errno or 0, str(path)) from error


def refresh(root: Path, network: Network) -> None:
    """The network's rules for the containers that live now. Call it while locked."""
    firewall.apply(firewall.ruleset(network, _published(root, network)))


def _published(root: Path, network: Network) -> Iterator[Published]:
    for _, record in endpoints.living(root):
        one = record.on(network.id)
        if one is not None and one.ports:
            yield Published(one.address, one.ports, one.address6)


def drop_lingering(root: Path) -> None:
    """Take the default network down now if it is up without a user. For root, whose bridges are here."""
    if entered() is None:
        with state.locked(root):
            drop_lingering_locked(root)


def drop_lingering_locked(root: Path) -> None:
    """The same, for who holds the lock already."""
    network = networks_up(root).get(default_id(root))
    if network is not None:
        take_down_unused(root, network)


def take_down_unused(root: Path, network: Network) -> None:
    """Unless somebody is on it. Call it while locked."""
    if not users(root, network):
        _take_down(root, network, None)


def settle_locked(
    root: Path, changed: Sequence[str] | None = None, asked: Record | None = None, *, lock: int | None = None
) -> None:
    """Bring rules and bridges to what the living containers need. Call it while locked.

    Rules are made anew for the networks in ``changed``, or for all of them; bridges that nobody
    is on are removed, of those that ``asked`` was on or of all; with the descriptor of the ``lock``
    not at once, but before the lock is free, and the default network some time later.
    """
    used = {one.network for _, record in endpoints.living(root) for one in record.endpoints}
    for network in networks_up(root, making=True).values():
        if network.id not in used:
            if asked is None or asked.on(network.id):
                _leave_alone(root, network, changed, lock)
        elif changed is None or network.id in changed:
            refresh(root, network)


def _leave_alone(root: Path, network: Network, changed: Sequence[str] | None, lock: int | None) -> None:
    """Of a network that nobody is on."""
    if lock is None or not _lingers(root, network):
        _take_down(root, network, lock)
    elif changed is None or network.id in changed:
        refresh(root, network)  # no port is open any more


def _lingers(root: Path, network: Network) -> bool:
    """An ordinary user's networks end with the namespace that they are in."""
    return network.id == default_id(root) and entered() is None and linger(root / f"{_UP}{network.id}")


def _take_down(root: Path, network: Network, lock: int | None) -> None:
    firewall.close_forward(network.bridge, ipv6=network.ipv6)
    firewall.remove(network.table)
    files = [root / f"{start}{network.id}" for start in (_UP, _MAKING)]
    if lock is not None and remove_beside(rtnetlink.delete_link(network.bridge), files, lock):
        return
    _remove_bridge(network.bridge)
    for file in files:
        file.unlink(missing_ok=True)


def _remove_bridge(name: str) -> None:
    try:
        link.request(rtnetlink.delete_link(name))
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise


def networks_up(root: Path, *, making: bool = False) -> dict[str, Network]:
    """Networks that are up, by id; with ``making`` also what killed processes left halfway."""
    found: dict[str, Network] = {}
    starts = (_UP, _MAKING) if making else (_UP,)
    with suppress(FileNotFoundError):
        for name in os.listdir(root):
            if name.startswith(starts):
                with suppress(OSError, ValueError, KeyError, TypeError):
                    network = networks.decode((root / name).read_text())
                    found[network.id] = network
    return found


def users(root: Path, network: Network) -> list[tuple[Path, Record]]:
    """The living containers on this network."""
    return [(directory, record) for directory, record in endpoints.living(root) if record.on(network.id)]


def settle(root: Path) -> None:
    """Remove what killed processes have left of the networks. For ``sweep``."""
    with state.locked(root):
        settle_locked(root)
