"""A running container put on one more network, or taken off one.

The container's record, addresses and rules change under the lock of the runtime directory; its
interfaces, hosts and resolv.conf at once. Its resolver reads the record for each question.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from image.errors import Conflict, NotFound
from image.paths import Path
from image.value import replace
from runner.network import bridge, endpoints, files, firewall, link, listeners, namespace, resolver
from runner.network.addresses import V4, V6, dotted, packed, spelled
from runner.network.bridge import Attachment
from runner.network.endpoints import Endpoint, Record
from runner.network.namespace import where_bridges_are
from runner.network.networks import Network
from runner.runtime import rtnetlink, state
from runner.runtime.user_namespace import entered


def connect(root: Path, directory: Path, attachment: Attachment) -> list[str]:
    """Put the container on the network; warnings.

    ``directory`` is the container's, in the runtime directory ``root``. Raises Conflict when it is on
    the network, or has no bridge at all; InvalidInput, KernelError. Nothing has changed then.
    """
    warnings = where_bridges_are(root, lambda: _connect(root, directory, attachment))
    if warnings is None:
        raise _without_bridges(directory.name[:12])
    return warnings


def _connect(root: Path, directory: Path, attachment: Attachment) -> list[str]:
    with state.locked(root):
        record = _record(directory)
        network = attachment.network
        if record.on(network.id) is not None:
            raise Conflict(f"container {_name(directory, record)} is already on network {network.name}")
        if not record.endpoints and not record.resolver and entered() is not None:
            raise _without_bridges(_name(directory, record))  # an ordinary user's, elsewhere than the bridges
        try:
            network, endpoint, warnings = bridge.place(root, attachment, record)
            changed = replace(record, endpoints=(*record.endpoints, endpoint)).with_ports
            endpoints.write(directory, changed)
            known = _networks(root, record)
            if record.closed:
                listeners.open_alone(record.holder, changed.ports)
                bridge.refresh(root, network)
            _plug(record.pid, network, endpoint, known)
        except BaseException:
            endpoints.write(directory, record)
            listeners.open_alone(record.holder, record.ports)
            bridge.settle_locked(root)
            raise
        _add_host(directory, endpoint)
        if network.resolves and not any(one.resolves for one in known):
            warnings += _ask_resolver(directory, record)
        return warnings


def _without_bridges(name: str) -> Conflict:
    return Conflict(f"container {name} has no network of bridges that another could join")


def _plug(pid: int, network: Network, endpoint: Endpoint, known: list[Network]) -> None:
    outside = {bits: bridge.gateway_network([*known, network], bits) is network for bits in (V4, V6)}
    requests = bridge.inside(network, endpoint, gateway=outside[V4], ipv6_gateway=outside[V6])
    bridge.plug(network, endpoint, pid)
    try:
        namespace.within(pid, lambda: _configure(endpoint, requests))
    except BaseException:
        namespace.within(pid, lambda: link.request(rtnetlink.delete_link(endpoint.interface)))
        raise


def _configure(endpoint: Endpoint, requests: Iterable[bytes]) -> None:
    """Inside; as at a start, an interface without IPv6 has no link-local address either."""
    if not endpoint.address6:
        with suppress(OSError):  # a kernel without IPv6
            Path(f"/proc/sys/net/ipv6/conf/{endpoint.interface}/disable_ipv6").write_text("1")
    link.request(*requests)


def disconnect(root: Path, directory: Path, network: Network) -> None:
    """Take the container off the network; its published ports move to the next one that leads outside.

    Without such a one they are closed, until it is on one again.

    Raises NotFound when it is not on it, KernelError.
    """
    if not where_bridges_are(root, lambda: _disconnect(root, directory, network)):
        raise NotFound(f"container {directory.name[:12]} is not on network {network.name}")


def _disconnect(root: Path, directory: Path, network: Network) -> bool:
    with state.locked(root):
        record = _record(directory)
        endpoint = record.on(network.id)
        if endpoint is None:
            raise NotFound(f"container {_name(directory, record)} is not on network {network.name}")
        known = [one for one in _networks(root, record) if one.id != network.id]
        rest = [one for one in record.endpoints if one.network != network.id]
        changed = replace(record, endpoints=tuple(rest), closed=(*record.closed, *endpoint.ports)).with_ports
        endpoints.write(directory, changed)
        if changed.closed:
            listeners.open_alone(record.holder, changed.ports)
        requests = [rtnetlink.delete_link(endpoint.interface), *_other_ways(known, rest, network)]
        namespace.within(record.pid, lambda: link.request(*requests))
        _remove_host(directory, endpoint)
        bridge.settle_locked(root)
        return True


def _other_ways(known: list[Network], rest: list[Endpoint], left: Network) -> list[bytes]:
    """Default routes by the next network, where the way out was by the one that is left."""
    requests = []
    for bits in (V4, V6):
        chosen = bridge.gateway_network(known, bits)
        if bridge.gateway_network([left], bits) is None or chosen is None:
            continue
        index = next(one.index for one in rest if one.network == chosen.id)
        pool = chosen.pool(bits)
        if pool is not None:
            requests.append(rtnetlink.default_route(index, packed(pool.gateway, bits), replace=True))
    return requests


def _record(directory: Path) -> Record:
    record = endpoints.read(directory)
    if record is None or not endpoints.is_alive(record.pid):
        raise Conflict(f"container {directory.name[:12]} has no network of its own that could be changed")
    return record


def _name(directory: Path, record: Record) -> str:
    return record.name or directory.name[:12]


def _networks(root: Path, record: Record) -> list[Network]:
    up = bridge.networks_up(root)
    return [up[one.network] for one in record.endpoints if one.network in up]


# --- files: changed in place, because they are what the container has mounted ----------------


def _texts(endpoint: Endpoint) -> list[str]:
    return [dotted(endpoint.address)] + ([spelled(endpoint.address6, V6)] if endpoint.address6 else [])


def _add_host(directory: Path, endpoint: Endpoint) -> None:
    hostname = (directory / "hostname").read_text().strip()
    with open(directory / "hosts", "a") as file:
        file.write("".join(f"{address}\t{hostname}\n" for address in _texts(endpoint)))


def _remove_host(directory: Path, endpoint: Endpoint) -> None:
    own = tuple(f"{address}\t" for address in _texts(endpoint))
    path = directory / "hosts"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith(own)))


def _ask_resolver(directory: Path, record: Record) -> list[str]:
    """From now on, as on every network that has names: it was on the default one alone, with the host's servers.

    Warnings: one that started without any network has nobody who would answer.
    """
    if len(record.resolver) != 2:
        return ["the container started without a network: it knows others by name after its next start"]
    namespace.within(record.pid, lambda: firewall.apply(resolver.redirection(*record.resolver)))
    path = directory / "resolv.conf"
    path.write_text(files.for_resolver(path.read_text(), files.Dns()))
    return []
