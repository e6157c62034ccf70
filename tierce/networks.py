"""The networks of one store and what is up of them: defined, described, removed.

Definitions outlive a reboot (``runner.network.networks``); who is on a network is asked of the
runtime directory (``runner.network.bridge``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from image.errors import Conflict, InvalidInput, NotFound
from image.value import replace
from runner.network import addresses, bridge, endpoints, link, live
from runner.network.addresses import V4, V6, Subnet, spelled
from runner.network.bridge import Attachment
from runner.network.endpoints import Record
from runner.network.networks import DEFAULT, PREDEFINED, Network, Networks, Pool, check_against
from runner.runtime import state

_SHORT_ID: Final = 12


def new_id() -> str:
    """64 hexadecimal digits, as docker's."""
    return secrets.token_hex(32)


def define(defined: Networks, wanted: Network, root: Path) -> Network:
    """Record the network, with free subnets where the user chose none. Raises NameInUse, Conflict, StorageError."""
    with defined.changing():
        others = [*defined.all(), bridge.default_network(root)]
        network = replace(wanted, pools=(*_completed(wanted, others),))
        check_against(network, others)
        bridge.check_routes(network, link.routes())
        defined.add(network)
    return network


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
    known = bridge.default_network(root).id
    return [Network(name, f"{known}{number:048x}", ()) for number, name in ((1, "host"), (2, "none"))]


def driver_of(network: Network) -> str:
    return {"host": "host", "none": "null"}.get(network.name, "bridge")


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


def join(
    defined: Networks, root: Path, network: str, directory: Path, aliases: tuple[str, ...], address: str, address6: str
) -> list[str]:
    """Put the running container of ``directory`` on a network; warnings.

    Raises what ``live.connect`` raises, and NotFound.
    """
    wanted = find(defined, root, network)
    if wanted.name in ("host", "none"):
        raise Conflict(f"cannot connect a container to network {wanted.name}")
    record = endpoints.read(directory)
    own = (record.name if record else "", directory.name[:_SHORT_ID])
    names = tuple(dict.fromkeys(name for name in (*own, *aliases) if name))
    return live.connect(root, directory, Attachment(wanted, names, address, address6))


def part(defined: Networks, root: Path, network: str, directory: Path) -> None:
    """Take the running container of ``directory`` off a network. Raises NotFound, Conflict, KernelError."""
    live.disconnect(root, directory, find(defined, root, network))


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
            directory.name: _container(network, record) for directory, record in bridge.users(root, network)
        },
        "Options": _options(network),
        "Labels": dict(network.labels),
    }


def _options(network: Network) -> dict[str, str]:
    if network.name != DEFAULT:
        return dict(network.options)
    return {"com.docker.network.bridge.default_bridge": "true", **dict(network.options)}


def _container(network: Network, record: Record) -> dict[str, str]:
    endpoint = record.on(network.id)
    assert endpoint is not None  # one of the network's users
    four, six = network.pool(V4), network.pool(V6)
    return {
        "Name": record.name,
        "EndpointID": "",
        "MacAddress": endpoint.mac.hex(":"),
        "IPv4Address": f"{spelled(endpoint.address)}/{four.subnet.prefix}" if four else "",
        "IPv6Address": f"{spelled(endpoint.address6, V6)}/{six.subnet.prefix}" if six and endpoint.address6 else "",
    }
