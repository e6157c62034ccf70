"""Published ports: docker's ``-p`` syntax, and holding a port of the host.

A published port is a rule of the firewall, which binds nothing. So the launcher also keeps a
listening socket on it: another program that wants the port, or a second container, gets a
clear refusal, and a free port can be chosen by the kernel.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from image.errors import InvalidInput, PortInUse
from image.value import dataclass, replace

PROTOCOLS = ("tcp", "udp")
_ANY = "0.0.0.0"  # noqa: S104  # docker publishes on every address unless told otherwise
_ANY6 = "::"
ANY = (_ANY, _ANY6)


@dataclass(frozen=True, slots=True)
class Port:
    """``container_port`` of the container answers on ``host_port`` (0: choose one) of ``host_address``.

    With ``host_last``, the first free one from ``host_port`` to it.
    """

    container_port: int
    host_port: int = 0
    host_address: str = _ANY
    protocol: str = "tcp"
    host_last: int = 0

    def __str__(self) -> str:
        address = f"[{self.host_address}]" if ":" in self.host_address else self.host_address
        return f"{address}:{self.host_port}->{self.container_port}/{self.protocol}"

    def on(self, address: str) -> Port:
        """At this address of the host when the user named none; "" leaves it on all."""
        return replace(self, host_address=address) if address and self.host_address == _ANY else self


def parse_publish(text: str) -> tuple[Port, ...]:
    """``[[ADDRESS:][HOST_PORT]:]CONTAINER_PORT[/PROTOCOL]``, ports also as ranges FIRST-LAST.

    Raises InvalidInput.
    """
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidInput(f"cannot publish {text!r}: protocol {protocol} is not supported, use tcp or udp")
    address, rest = _split_address(rest, text)
    *before, container = rest.split(":")
    inside = _range(container, text)
    outside = _range(before[-1], text) if before and before[-1] not in ("", "0") else []  # 0: any, as docker has it
    if len(inside) == 1 and len(outside) > 1:
        return (Port(inside[0], outside[0], address, protocol, outside[-1]),)
    if outside and len(inside) != len(outside):
        raise InvalidInput(f"cannot publish {text!r}: the ranges of host and container differ in length")
    return tuple(
        Port(port, published, address, protocol)
        for port, published in zip(inside, outside or [0] * len(inside), strict=True)
    )


def parse_exposed(text: str) -> tuple[Port, ...]:
    """``PORT[-LAST][/PROTOCOL]`` of EXPOSE or ``--expose``, for ``--publish-all``. Raises InvalidInput."""
    if ":" in text:
        raise InvalidInput(f"cannot expose {text!r}: write PORT[/PROTOCOL]")
    return parse_publish(text)


def _split_address(text: str, whole: str) -> tuple[str, str]:
    """The host's address, and the ports that follow it."""
    if text.startswith("["):
        address, bracket, ports = text[1:].partition("]:")
        if not bracket or ports.count(":") > 1:
            raise InvalidInput(f"cannot publish {whole!r}: write [ADDRESS]:HOST_PORT:CONTAINER_PORT")
        return _address6(address, whole), ports
    if text.count(":") > 2:
        raise InvalidInput(f"cannot publish {whole!r}: put an IPv6 address into brackets")
    if text.count(":") == 2:
        address, _, ports = text.partition(":")
        return _address(address, whole), ports
    return _ANY, text


def _address6(text: str, whole: str) -> str:
    try:
        address = _socket.inet_ntop(_socket.AF_INET6, _socket.inet_pton(_socket.AF_INET6, text))
    except OSError:
        raise InvalidInput(f"cannot publish {whole!r}: {text!r} is not an IPv6 address") from None
    if address == "::1":
        raise InvalidInput(f"cannot publish {whole!r}: [::1] cannot be forwarded to a container, use 127.0.0.1 or [::]")
    return address


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    numbers = [number for number in (first, last or first) if number.isascii() and number.isdigit()]
    if len(numbers) != 2 or not 0 < int(numbers[0]) <= int(numbers[1]) < 65536:
        raise InvalidInput(f"cannot publish {whole!r}: {text!r} is not a port or a range of ports")
    return list(range(int(numbers[0]), int(numbers[1]) + 1))


def _address(text: str, whole: str) -> str:
    if not text:
        return _ANY
    try:
        return _socket.inet_ntoa(_socket.inet_aton(text)) if text.count(".") == 3 else _not_an_address(text, whole)
    except OSError:
        return _not_an_address(text, whole)


def _not_an_address(text: str, whole: str) -> str:
    raise InvalidInput(f"cannot publish {whole!r}: {text!r} is not an IPv4 address")


class Reservation:
    """Ports of the host, held by sockets until ``close``."""

    def __init__(self, ports: Sequence[Port], *, ipv6: bool = False) -> None:
        """With ``ipv6``, what is published on every address of IPv4 is so on those of IPv6 too.

        Raises PortInUse, holding nothing, when one of the ports is taken.
        """
        self._sockets: list[_socket.socket] = []
        self._ipv6 = ipv6
        try:
            self.ports = tuple(self._hold(ports))
        except BaseException:
            self.close()
            raise

    def _hold(self, ports: Sequence[Port]) -> Iterator[Port]:
        for port in ports:
            held = self._hold_first(port)
            yield held
            if self._ipv6 and port.host_address == _ANY:
                yield self._hold_first(replace(held, host_address=_ANY6))

    def _hold_first(self, port: Port) -> Port:
        """Of the numbers that the port may have, the first that is free."""
        last = max(port.host_last, port.host_port)
        for number in range(port.host_port, last + 1):
            try:
                return self._hold_one(port, number)
            except OSError as error:
                if number == last or error.errno != errno.EADDRINUSE:
                    raise refused(port, error) from error
        raise AssertionError("a range has a last number")

    def _hold_one(self, port: Port, number: int) -> Port:
        kind = _socket.SOCK_STREAM if port.protocol == "tcp" else _socket.SOCK_DGRAM
        family = _socket.AF_INET6 if ":" in port.host_address else _socket.AF_INET
        held = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
        try:
            if port.protocol == "tcp":  # old connections in TIME_WAIT do not hold the port, a listener does
                held.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if family == _socket.AF_INET6:
                held.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            held.bind((port.host_address, number))
            if port.protocol == "tcp":
                held.listen(1)
        except OSError:
            held.close()
            raise
        self._sockets.append(held)
        return replace(port, host_port=held.getsockname()[1], host_last=0)

    @property
    def descriptors(self) -> list[int]:
        """What keeps the ports: for a process that goes on holding them."""
        return [held.fileno() for held in self._sockets]

    def close(self) -> None:
        """Give the ports back. Idempotent."""
        for held in self._sockets:
            with suppress(OSError):
                held.close()
        self._sockets = []


def refused(port: Port, error: OSError) -> PortInUse:
    """What to raise when a port can't be had."""
    numbers = f"{port.host_port}-{port.host_last}" if port.host_last else f"{port.host_port}"
    where = f"{port.host_address}:{numbers}/{port.protocol}"
    why = "is already in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0).lower()
    return PortInUse(f"cannot publish port {where}: {why} (choose another host port with -p)")
