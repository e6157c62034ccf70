"""Where containers are on networks: one file a container in the runtime directory, of plain lines.

    <root>/containers/ID/network

    name NAME                                   what siblings call it
    pid PID                                     whose network namespace it is
    resolver UDP TCP                            ports of our resolver in there, see ``resolver``
    server ADDRESS                              where other names are asked for
    on NETWORK ITS_NAME INTERFACE INDEX IPV4 IPV6 MAC ALIAS,...
    within …                                    the same, of an internal network
    port PROTOCOL ADDRESS HOST_PORT PORT        of the endpoint above it
    closed PROTOCOL ADDRESS HOST_PORT PORT      one that no endpoint has now
    holder PID DESCRIPTOR...                    who keeps the ports, and by which sockets

A container counts while its lease is locked; what dead ones wrote is free. Plain lines, because
the resolver beside each container reads them with nothing but the interpreter's own modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from image.paths import Path
from image.value import dataclass, replace
from runner.network.addresses import parse_address, parse_address6, spelled
from runner.network.ports import Port
from runner.runtime import state

FILE = "network"
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on one network. ``network`` is an id; no IPv6 address is 0."""

    network: str
    interface: str
    index: int
    address: int
    address6: int
    mac: bytes
    aliases: tuple[str, ...] = ()
    network_name: str = ""
    internal: bool = False
    ports: tuple[Port, ...] = ()

    def answers(self, port: Port) -> bool:
        """Whether it leads outside, with an address of the port's family."""
        return not self.internal and bool(self.address6 if ":" in port.host_address else self.address)


@dataclass(frozen=True, slots=True)
class Record:
    """All of one container. ``servers`` are the user's ``--dns``; ``pid`` is 0 until it starts.

    ``closed`` are published ports that no endpoint has; ``holder`` is who keeps ports, and its sockets.
    """

    name: str = ""
    pid: int = 0
    servers: tuple[str, ...] = ()
    resolver: tuple[int, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    closed: tuple[Port, ...] = ()
    holder: tuple[int, ...] = ()

    def on(self, network: str) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.network == network), None)

    @property
    def ports(self) -> tuple[Port, ...]:
        return tuple(port for endpoint in self.endpoints for port in endpoint.ports)

    @property
    def with_ports(self) -> Record:
        """Each published port where it is, else at the first endpoint that leads outside; closed without one."""
        placed = [replace(one, ports=tuple(port for port in one.ports if one.answers(port))) for one in self.endpoints]
        closed = []
        for port in (*self.ports, *self.closed):
            if any(port in one.ports for one in placed):
                continue
            at = next((at for at, one in enumerate(placed) if one.answers(port)), None)
            if at is None:
                closed.append(port)
            else:
                placed[at] = replace(placed[at], ports=(*placed[at].ports, port))
        return replace(self, endpoints=tuple(placed), closed=tuple(closed))


def write(directory: Path, record: Record) -> None:
    """Replace the container's file at once."""
    partial = directory / f".{FILE}"
    partial.write_text("".join(f"{line}\n" for line in _lines(record)))
    partial.rename(directory / FILE)


def _lines(record: Record) -> Iterator[str]:
    if record.name:
        yield f"name {record.name}"
    if record.pid:
        yield f"pid {record.pid}"
    if record.resolver:
        yield f"resolver {' '.join(map(str, record.resolver))}"
    for server in record.servers:
        yield f"server {server}"
    for one in record.endpoints:
        six = spelled(one.address6, 128) if one.address6 else _NOTHING
        aliases = ",".join(one.aliases) or _NOTHING
        where = f"{one.interface} {one.index} {spelled(one.address)} {six} {one.mac.hex(':')}"
        kind = "within" if one.internal else "on"
        yield f"{kind} {one.network} {one.network_name} {where} {aliases}"
        yield from (_port_line("port", port) for port in one.ports)
    yield from (_port_line("closed", port) for port in record.closed)
    if record.holder:
        yield f"holder {' '.join(map(str, record.holder))}"


def _port_line(kind: str, port: Port) -> str:
    return f"{kind} {port.protocol} {port.host_address} {port.host_port} {port.container_port}"


def read(directory: Path) -> Record | None:
    """None when the container is on no network, or has just gone."""
    try:
        text = (directory / FILE).read_text()
    except OSError:
        return None
    record = Record()
    for line in text.splitlines():
        with suppress(ValueError):
            record = _with_line(record, *line.split(" "))
    return record


def _with_line(record: Record, kind: str, *words: str) -> Record:
    match kind:
        case "name":
            return replace(record, name=words[0])
        case "pid":
            return replace(record, pid=int(words[0]))
        case "resolver":
            return replace(record, resolver=tuple(map(int, words)))
        case "server":
            return replace(record, servers=(*record.servers, words[0]))
        case "on" | "within":
            return replace(record, endpoints=(*record.endpoints, _endpoint(kind, *words)))
        case "port":
            last = record.endpoints[-1]
            last = replace(last, ports=(*last.ports, _port(*words)))
            return replace(record, endpoints=(*record.endpoints[:-1], last))
        case "closed":
            return replace(record, closed=(*record.closed, _port(*words)))
        case "holder":
            return replace(record, holder=tuple(map(int, words)))
    return record


def _port(protocol: str, address: str, host_port: str, port: str) -> Port:
    return Port(int(port), int(host_port), address, protocol)


def _endpoint(kind: str, *words: str) -> Endpoint:
    network, name, interface, index, four, six, mac, aliases = words
    address = parse_address(four)
    if address is None:
        raise ValueError(four)
    names = () if aliases == _NOTHING else tuple(aliases.split(","))
    return Endpoint(
        network,
        interface,
        int(index),
        address,
        parse_address6(six) or 0,
        bytes.fromhex(mac.replace(":", "")),
        names,
        name,
        kind == "within",
    )


def living(root: Path, *, apart_from: Path | None = None) -> Iterator[tuple[Path, Record]]:
    """Directory and record of each living container that has a network of its own."""
    for directory in state.live(root):
        if directory != apart_from and (record := read(directory)) is not None:
            yield directory, record


def is_alive(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}/ns/net")
