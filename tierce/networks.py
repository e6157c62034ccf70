"""The networks of one store and what is up of them: defined, described, removed.

Definitions outlive a reboot (``runner.network.networks``); who is on a network is asked of the
runtime directory (``runner.network.bridge``).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image.errors import Conflict, InvalidInput, NotFound
from image.value import replace
from runner.network import addresses, bridge, endpoints, link, live
from runner.network.addresses import V4, V6, Subnet, spelled
from runner.network.bridge import Attachment
from runner.network.endpoints import Record
from runner.network.identity import WITHOUT_BRIDGE, id_without_bridge
from runner.network.networks import DEFAULT, PREDEFINED, Network, Networks, Pool, check_against
from runner.network.wishes import NetworkOptions, Wish, with_network, without_network
from runner.runtime import state
from store.journal import Journal

if TYPE_CHECKING:
    from runner.containers.records import Record as Container
    from runner.containers.records import Records

_SHORT_ID: Final = 12


def new_id() -> str:
    """64 hexadecimal digits, as docker's."""
    return secrets.token_hex(32)


def identity(*words: str) -> str:
    """64 hexadecimal digits that follow from the words: of a container's place on a network, for example."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def define(defined: Networks, wanted: Network, root: Path) -> Network:
    """Record the network, with free subnets where the user chose none. Raises NameInUse, Conflict, StorageError."""
    with defined.changing():
        bridge.drop_lingering(root)  # its subnet is free
        others = [*defined.all(), bridge.default_network(root)]
        network = replace(wanted, pools=(*_completed(wanted, others),))
        check_against(network, others)
        bridge.check_routes(network, link.routes())
        defined.add(network)
    _tell(defined, "create", network)
    return network


def _tell(defined: Networks, action: str, network: Network, container: str = "") -> None:
    """An event, for who follows them."""
    more = {"container": container} if container else {}
    journal = Journal(defined.directory.parent)
    journal.write("network", action, network.id, {"name": network.name, "type": driver_of(network), **more})


def _completed(wanted: Network, others: list[Network]) -> list[Pool]:
    pools = list(wanted.pools)
    if wanted.pool(V4) is None:
        taken = [*link.routes(), *(pool.subnet for network in others for pool in network.pools), addresses.POOL[0]]
        subnet = addresses.choose_subnet(taken)  # the first of the pool is the default network's, when it comes up
        pools.insert(0, Pool(subnet, subnet.gateway))
    if wanted.ipv6 and wanted.pool(V6) is None:
        subnet = Subnet(int.from_bytes(b"\xfd" + secrets.token_bytes(7) + bytes(8), "big"), 64, V6)  # RFC 4193
        pools.append(Pool(subnet, subnet.gateway))
    return pools


def everything(defined: Networks, root: Path) -> list[Network]:
    """All networks by name, with those that always are."""
    return sorted([bridge.default_network(root), *_without_bridge(root), *defined.all()], key=lambda one: one.name)


def _without_bridge(root: Path) -> list[Network]:
    """``host`` and ``none``, as docker lists them; their ids follow from the default network's."""
    return [Network(name, id_without_bridge(root, name), ()) for name in WITHOUT_BRIDGE]


def driver_of(network: Network) -> str:
    return WITHOUT_BRIDGE[network.name][0] if network.name in WITHOUT_BRIDGE else "bridge"


def find(defined: Networks, root: Path, word: str) -> Network:
    """Raises NotFound, Conflict."""
    for network in [bridge.default_network(root), *_without_bridge(root)]:
        if word in (network.name, network.id):
            return network
    return defined.find(word)


def remove(defined: Networks, root: Path, word: str) -> Network:
    """Raises NotFound; InvalidInput for a predefined network; Conflict while a container is on it."""
    if word in PREDEFINED:
        raise InvalidInput(f"network {word} is predefined and cannot be removed")
    with defined.changing(), state.locked(root):
        network = defined.find(word)
        on_it = bridge.users(root, network)
        if on_it:
            names = ", ".join(record.name or directory.name[:12] for directory, record in on_it)
            raise Conflict(f"network {network.name} has active endpoints: {names} (tierce network disconnect -f)")
        defined.remove(network)
    _tell(defined, "destroy", network)
    return network


def remove_unused(defined: Networks, root: Path, chosen: Callable[[Network], bool]) -> list[Network]:
    """Every created network that passes and that no container is on."""
    removed = []
    for network in defined.all():
        if chosen(network):
            try:
                removed.append(remove(defined, root, network.name))
            except (Conflict, NotFound):
                continue
    return removed


def join(defined: Networks, records: Records, root: Path, container: str, wish: Wish) -> list[str]:
    """Put a container on a network, at once if it runs, and for its next starts; warnings.

    Raises what ``live.connect`` raises, and NotFound.
    """
    wanted = find(defined, root, wish.name)
    if wanted.name in WITHOUT_BRIDGE:
        raise Conflict(f"cannot connect a container to network {wanted.name}")
    record = records.get(container)
    wish = replace(wish, name=wanted.name)
    options = with_network(record.made.options.network, wish)
    warnings: list[str] = []
    if record.state.is_running:
        names = tuple(dict.fromkeys((record.name, record.id[:_SHORT_ID], *wish.aliases)))
        place = Attachment(wanted, names, wish.address, wish.address6)
        warnings = live.connect(root, root / "containers" / record.id, place)
    _remember(records, record, options, root)
    _tell(defined, "connect", wanted, record.id)
    return warnings


def part(defined: Networks, records: Records, root: Path, network: str, container: str) -> None:
    """Take a container off a network, at once if it runs, and for its next starts.

    Raises NotFound, Conflict, KernelError.
    """
    left, record = find(defined, root, network), records.get(container)
    options = without_network(record.made.options.network, left.name)
    if record.state.is_running:
        live.disconnect(root, root / "containers" / record.id, left)
    _remember(records, record, options, root)
    _tell(defined, "disconnect", left, record.id)


def _remember(records: Records, record: Container, options: NetworkOptions, root: Path) -> None:
    """For its next start; and of one that runs, where it is now."""
    made = record.made
    records.remake(record, replace(made, options=replace(made.options, network=options)))
    place = endpoints.read(root / "containers" / record.id)
    now = records.unsettled(record.id)
    if place is None or not now.state.is_running:
        return
    state = replace(
        now.state,
        address=addresses.dotted(place.endpoints[0].address) if place.endpoints else "",
        ports=tuple(map(str, place.ports)),
        networks=tuple((one.network_name, one.network, "bridge") for one in place.endpoints),
    )
    records.change(now, state)


def describe(network: Network, root: Path) -> dict[str, object]:
    """Docker's document."""
    configured = [
        {"Subnet": str(pool.subnet), **({"IPRange": str(pool.ip_range)} if pool.ip_range else {}),
         "Gateway": pool.gateway_text}
        for pool in network.pools
    ]  # fmt: skip
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": datetime.fromtimestamp(network.created, UTC).isoformat().replace("+00:00", "Z"),
        "Scope": "local",
        "Driver": driver_of(network),
        "EnableIPv4": True,
        "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Options": None, "Config": configured},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            directory.name: _container(network, directory.name, record)
            for directory, record in bridge.users(root, network)
        },
        "Options": _options(network),
        "Labels": dict(network.labels),
    }


def _options(network: Network) -> dict[str, str]:
    if network.name != DEFAULT:
        return dict(network.options)
    return {"com.docker.network.bridge.default_bridge": "true", **dict(network.options)}


def _container(network: Network, container: str, record: Record) -> dict[str, str]:
    endpoint = record.on(network.id)
    assert endpoint is not None  # one of the network's users
    four, six = network.pool(V4), network.pool(V6)
    return {
        "Name": record.name,
        "EndpointID": identity(network.id, container),
        "MacAddress": endpoint.mac.hex(":"),
        "IPv4Address": f"{spelled(endpoint.address)}/{four.subnet.prefix}" if four else "",
        "IPv6Address": f"{spelled(endpoint.address6, V6)}/{six.subnet.prefix}" if six and endpoint.address6 else "",
    }
