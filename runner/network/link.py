"""A raw rtnetlink socket: sends ``runtime.rtnetlink`` requests in this network namespace."""

from __future__ import annotations

import _socket
import errno
from collections.abc import Iterator
from struct import unpack_from

from image.errors import KernelError
from runner.network.addresses import Subnet
from runner.runtime import rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTA_DST = 1
_HEADER, _ROUTE_HEADER = 16, 12


def request(*messages: bytes) -> None:
    """Send requests one after the other. Raises KernelError at the first that is refused."""
    with _Connection() as connection:
        for message in messages:
            connection.exchange(message)


def link_index(name: str) -> int | None:
    """The index of an interface, or None when there is none of this name."""
    try:
        with _Connection() as connection:
            for reply in connection.exchange(rtnetlink.get_link(name)):
                index: int = unpack_from("=i", reply, _HEADER + 4)[0]
                return index
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
    return None


def routes() -> tuple[Subnet, ...]:
    """Every IPv4 network that this host has a route to, but the default one and multicast."""
    with _Connection() as connection:
        found = [subnet for reply in connection.exchange(rtnetlink.dump_routes()) for subnet in _route(reply)]
    return tuple(subnet for subnet in found if subnet.prefix and subnet.base >> 28 != 0xE)


def _route(reply: bytes) -> Iterator[Subnet]:
    prefix = reply[_HEADER + 1]
    position = _HEADER + _ROUTE_HEADER
    while position + 4 <= len(reply):
        size, kind = unpack_from("=HH", reply, position)
        if kind == _RTA_DST and size == 8:
            yield Subnet(int.from_bytes(reply[position + 4 : position + 8], "big"), prefix)
        position += max(size + 3 & ~3, 4)


class _Connection:
    """One netlink socket. Replies are matched by order: a request is answered before the next is sent."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, message: bytes) -> list[bytes]:
        """The replies up to the acknowledgement or the end of the dump, each with its header."""
        self._socket.send(message)
        replies: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 17)
            position = 0
            while position < len(data):
                size, kind = unpack_from("=IH", data, position)
                reply = data[position : position + size]
                position += size + 3 & ~3
                if kind == _NLMSG_DONE:
                    return replies
                if kind == _NLMSG_ERROR:
                    code = unpack_from("=i", reply, _HEADER)[0]
                    if code:
                        raise KernelError("network", "rtnetlink", -code)
                    return replies
                replies.append(reply)
