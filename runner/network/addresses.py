"""Subnets and addresses of IPv4 and IPv6, as integers. Pure."""

from __future__ import annotations

import _socket
from collections.abc import Collection, Iterable

from image.errors import Conflict
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

V4, V6 = 32, 128
"""The length of an address in bits, which tells the two families apart."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """``base`` is the network's number as an integer, ``prefix`` its length in bits."""

    base: int
    prefix: int
    bits: int = V4

    def __str__(self) -> str:
        return f"{spelled(self.base, self.bits)}/{self.prefix}"

    @property
    def size(self) -> int:
        return 1 << (self.bits - self.prefix)

    @property
    def gateway(self) -> int:
        """The first address: the bridge's own."""
        return self.base + 1

    @property
    def broadcast(self) -> int:
        return self.base + self.size - 1

    def overlaps(self, other: Subnet) -> bool:
        same = self.bits == other.bits
        return same and self.base < other.base + other.size and other.base < self.base + self.size

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.base + self.size


def dotted(address: int) -> str:
    return ".".join(str(address >> shift & 0xFF) for shift in (24, 16, 8, 0))


def spelled(address: int, bits: int = V4) -> str:
    """An address as people write it."""
    return dotted(address) if bits == V4 else _socket.inet_ntop(_socket.AF_INET6, packed(address, bits))


def parse_address(text: str) -> int | None:
    """An IPv4 address as an integer; None when ``text`` is not four numbers below 256."""
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
        return None
    return int.from_bytes(bytes(int(part) for part in parts), "big")


def parse_address6(text: str) -> int | None:
    """An IPv6 address as an integer; None when ``text`` is none."""
    try:
        return int.from_bytes(_socket.inet_pton(_socket.AF_INET6, text), "big")
    except (OSError, ValueError):
        return None


def parse_subnet(text: str) -> Subnet | None:
    """``ADDRESS/PREFIX`` of either family as a network; None when malformed."""
    address_text, _, prefix_text = text.partition("/")
    bits = V6 if ":" in address_text else V4
    address = parse_address6(address_text) if bits == V6 else parse_address(address_text)
    if address is None or not (prefix_text.isascii() and prefix_text.isdigit()) or int(prefix_text) > bits:
        return None
    prefix = int(prefix_text)
    return Subnet(address & ~((1 << (bits - prefix)) - 1), prefix, bits)


def packed(address: int, bits: int = V4) -> bytes:
    return address.to_bytes(bits // 8, "big")


def mac(address: int) -> bytes:
    """A locally administered address that follows from the IP: no stale neighbour entry can mislead."""
    return b"\x02\x42" + packed(address)


_SECOND_BYTES: Final = (28, 29, 30, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 31)
POOL: Final = (
    *(Subnet(172 << 24 | second << 16, 16) for second in _SECOND_BYTES),
    *(Subnet(192 << 24 | 168 << 16 | third << 8, 20) for third in range(240, -1, -16)),
)
"""Docker's pools, from the end that docker uses last. 172.31 is what clouds give their machines."""

_OTHERS: Final = (Subnet(172 << 24 | 17 << 16, 16), Subnet(10 << 24 | 88 << 16, 16))
"""What docker and podman take for their default networks as soon as they start."""


def choose_subnet(taken: Iterable[Subnet], *, pool: Iterable[Subnet] = POOL) -> Subnet:
    """The first of the pool that overlaps nothing the host can reach. Raises Conflict."""
    used = [*taken, *_OTHERS]
    for candidate in pool:
        if not any(candidate.overlaps(other) for other in used):
            return candidate
    raise Conflict("cannot find a subnet: every one of the pools overlaps a route of this host or another network")


def choose_address(subnet: Subnet, used: Collection[int], *, within: Subnet | None = None) -> int:
    """The lowest free address after the gateway, of ``within`` when given. Raises Conflict."""
    area = within or subnet
    first = max(area.base, subnet.gateway + 1)
    last = min(area.base + area.size, subnet.broadcast)
    for address in range(first, last):
        if address not in used:
            return address
    raise Conflict(f"no address of {area} is free")
