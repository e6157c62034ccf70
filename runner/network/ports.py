"""Published ports: docker's ``-p`` syntax, and holding a port of the host.

A published port is a rule of the firewall, which binds nothing. So the launcher also keeps a
listening socket on it: another program that wants the port, or a second container, gets a
clear refusal, and a free port can be chosen by the kernel.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from image.errors import InvalidInput, PortInUse
from image.value import dataclass

PROTOCOLS = ("tcp", "udp")
_ANY = "0.0.0.0"  # noqa: S104  # docker publishes on every address unless told otherwise


@dataclass(frozen=True, slots=True)
class Port:
    """``container_port`` of the container answers on ``host_port`` (0: choose one) of ``host_address``."""

    container_port: int
    host_port: int = 0
    host_address: str = _ANY
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.host_address}:{self.host_port}->{self.container_port}/{self.protocol}"


def parse_publish(text: str) -> tuple[Port, ...]:
    """``[[ADDRESS:][HOST_PORT]:]CONTAINER_PORT[/PROTOCOL]``, ports also as ranges FIRST-LAST.

    Raises InvalidInput.
    """
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidInput(f"cannot publish {text!r}: protocol {protocol} is not supported, use tcp or udp")
    if rest.startswith("[") or rest.count(":") > 2:
        raise InvalidInput(f"cannot publish {text!r}: IPv6 addresses of the host are not supported yet")
    *before, container = rest.split(":")
    host = before[-1] if before else ""
    address = before[0] if len(before) == 2 else ""
    inside = _range(container, text)
    outside = _range(host, text) if host else [0] * len(inside)
    if len(inside) != len(outside):
        raise InvalidInput(f"cannot publish {text!r}: the ranges of host and container differ in length")
    return tuple(
        Port(port, published, _address(address, text), protocol)
        for port, published in zip(inside, outside, strict=True)
    )


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

    def __init__(self, ports: Sequence[Port]) -> None:
        """Raises PortInUse, holding nothing, when one of the ports is taken."""
        self._sockets: list[_socket.socket] = []
        try:
            self.ports = tuple(self._hold(ports))
        except BaseException:
            self.close()
            raise

    def _hold(self, ports: Sequence[Port]) -> Iterator[Port]:
        for port in ports:
            kind = _socket.SOCK_STREAM if port.protocol == "tcp" else _socket.SOCK_DGRAM
            held = _socket.socket(_socket.AF_INET, kind | _socket.SOCK_CLOEXEC)
            self._sockets.append(held)
            try:
                if port.protocol == "tcp":  # old connections in TIME_WAIT do not hold the port, a listener does
                    held.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                held.bind((port.host_address, port.host_port))
                if port.protocol == "tcp":
                    held.listen(1)
            except OSError as error:
                where = f"{port.host_address}:{port.host_port}/{port.protocol}"
                why = "is already in use" if error.errno == 98 else os.strerror(error.errno or 0).lower()
                raise PortInUse(f"cannot publish port {where}: {why} (choose another host port with -p)") from error
            yield replace(port, host_port=held.getsockname()[1])

    def close(self) -> None:
        """Give the ports back. Idempotent."""
        for held in self._sockets:
            with suppress(OSError):
                held.close()
        self._sockets = []
