"""``NetworkSettings`` of ``inspect``: where a container is on networks, in docker's words.

Of a running container the runtime directory tells; of another one, what it was created with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from image.errors import InvalidInput, NotFound
from runner.containers.records import Record as Container
from runner.containers.records import Records
from runner.network import endpoints
from runner.network.addresses import V4, V6, dotted, spelled
from runner.network.bridge import networks_up
from runner.network.endpoints import Endpoint
from runner.network.networks import DEFAULT, Network, Networks
from runner.network.wishes import Wish, parse_wish
from tierce.documents import NIL_LIST, NIL_MAP, Record
from tierce.networks import find, identity

_SHORT_ID: Final = 12


def network_settings(records: Records, container: Container, root: Path, exposed: Iterable[str]) -> Record:
    """``root`` is the runtime directory; ``exposed`` are ports such as ``80/tcp``."""
    running = container.state.is_running
    networks = dict(_networks(records, container, root))
    default = networks.get(DEFAULT, _network(None, None, container, Wish("")))
    return Record(
        Bridge="",
        SandboxID=identity("sandbox", container.id) if running else "",
        SandboxKey=f"/proc/{container.state.pid}/ns/net" if running else "",
        Ports=_ports(container.state.ports, exposed) if _is_on_a_bridge(container) else {},
        HairpinMode=False,
        LinkLocalIPv6Address="",
        LinkLocalIPv6PrefixLen=0,
        SecondaryIPAddresses=NIL_LIST,
        SecondaryIPv6Addresses=NIL_LIST,
        **{name: default[name] for name in (
            "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway",
            "MacAddress",
        )},
        Networks=networks,
    )  # fmt: skip


def _is_on_a_bridge(container: Container) -> bool:
    """Whether it runs, with ports of its own."""
    return container.state.is_running and any(driver == "bridge" for _, _, driver in container.state.networks)


def _networks(records: Records, container: Container, root: Path) -> Iterator[tuple[str, Record]]:
    """By name, in the order of the command line."""
    defined = Networks(records.store.root / "networks")
    wishes = {wish.name: wish for wish in _wishes(container)}
    living = endpoints.read(root / "containers" / container.id) if container.state.is_running else None
    if living is not None and living.endpoints:
        up = networks_up(root)
        for one in living.endpoints:
            wish = wishes.get(one.network_name, Wish(one.network_name))
            yield one.network_name, _network(up.get(one.network), one, container, wish)
        return
    for name, wish in wishes.items():
        if name.startswith("container:"):
            return  # all is the other's
        network = None
        with suppress(NotFound):
            network = find(defined, root, name)
        found = _network(network, None, container, wish)
        if container.state.is_running and container.state.address:  # an ordinary user's, which has no bridge
            found["IPAddress"] = container.state.address
        yield name, found


def _wishes(container: Container) -> Iterator[Wish]:
    options = container.made.options.network
    if options.emptied:
        return
    for position, word in enumerate(options.networks or (DEFAULT,)):
        with suppress(InvalidInput):
            wish = parse_wish(word)
            own = options.aliases if position == 0 else ()
            yield Wish(
                DEFAULT if wish.name in ("default", "") else wish.name, (*wish.aliases, *own),
                wish.address or (options.address if position == 0 else ""),
                wish.address6 or (options.address6 if position == 0 else ""), wish.mac,
            )  # fmt: skip


def _network(network: Network | None, endpoint: Endpoint | None, container: Container, wish: Wish) -> Record:
    """One network. Empty where the container is not on it now."""
    four = network.pool(V4) if network and endpoint else None
    six = network.pool(V6) if network and endpoint and endpoint.address6 else None
    asked = {"IPv4Address": wish.address, "IPv6Address": wish.address6}
    asked = {name: address for name, address in asked.items() if address}
    return Record(
        IPAMConfig=asked or NIL_MAP,
        Links=NIL_LIST,
        Aliases=list(wish.aliases) or NIL_LIST,
        MacAddress=endpoint.mac.hex(":") if endpoint else "",
        DriverOpts=NIL_MAP,
        GwPriority=0,
        NetworkID=network.id if network else "",
        EndpointID=identity(network.id, container.id) if network and endpoint else "",
        Gateway=four.gateway_text if four else "",
        IPAddress=dotted(endpoint.address) if endpoint else "",
        IPPrefixLen=four.subnet.prefix if four else 0,
        IPv6Gateway=six.gateway_text if six else "",
        GlobalIPv6Address=spelled(endpoint.address6, V6) if six and endpoint else "",
        GlobalIPv6PrefixLen=six.subnet.prefix if six else 0,
        DNSNames=_names(container, wish) if network is not None and network.resolves and network.pools else NIL_LIST,
    )


def _names(container: Container, wish: Wish) -> list[str]:
    """By which siblings find it."""
    hostname = container.made.options.hostname
    names = (container.name, *wish.aliases, container.id[:_SHORT_ID], *((hostname,) if hostname else ()))
    return list(dict.fromkeys(names))


def _ports(published: Iterable[str], exposed: Iterable[str]) -> dict[str, Any]:
    """What each port of the container answers on; ``null`` for one that is only exposed."""
    found: dict[str, Any] = {}
    for text in published:
        outer, _, inner = text.rpartition("->")
        address, _, number = outer.rpartition(":")
        found.setdefault(inner, []).append(Record(HostIp=address.strip("[]"), HostPort=number))
    for port in exposed:
        found.setdefault(port if "/" in port else f"{port}/tcp", NIL_LIST)
    return found
