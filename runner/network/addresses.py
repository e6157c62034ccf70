"""IPv4 subnets and addresses for the bridge. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from image.errors import Conflict
from image.value import dataclass


@dataclass(frozen=True, slots=True)
class Subnet:
    """``base`` is the network's number as an integer, ``prefix`` its length in bits."""

    base: int
    prefix: int

    def __str__(self) -> str:
        return f"{dotted(self.base)}/{self.prefix}"

    @property
    def size(self) -> int:
        return 1 << (32 - self.prefix)

    @property
    def gateway(self) -> int:
        """The first address: the bridge's own."""
        return self.base + 1

    @property
    def broadcast(self) -> int:
        return self.base + self.size - 1

    def overlaps(self, other: Subnet) -> bool:
        return self.base < other.base + other.size and other.base < self.base + self.size


def dotted(address: int) -> str:
    return ".".join(str(address >> shift & 0xFF) for shift in (24, 16, 8, 0))


def parse_address(text: str) -> int | None:
    """An address as an integer; None when ``text`` is not four numbers below 256."""
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
        return None
    return int.from_bytes(bytes(int(part) for part in parts), "big")


def parse_subnet(text: str) -> Subnet | None:
    """``ADDRESS/PREFIX`` as a network; None when malformed."""
    address_text, _, prefix_text = text.partition("/")
    address = parse_address(address_text)
    if address is None or not prefix_text.isdigit() or int(prefix_text) > 32:
        return None
    prefix = int(prefix_text)
    return Subnet(address & ~((1 << (32 - prefix)) - 1), prefix)


def packed(address: int) -> bytes:
    return address.to_bytes(4, "big")


def mac(address: int) -> bytes:
    """A locally administered address that follows from the IP: no stale neighbour entry can mislead."""
    return b"\x02\x42" + packed(address)


_SECOND_BYTES: Final = (28, 29, 30, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18)
POOL: Final = (
    *(Subnet(172 << 24 | second << 16, 16) for second in _SECOND_BYTES),
    *(Subnet(192 << 24 | 168 << 16 | third << 8, 20) for third in range(240, -1, -16)),
)
"""Docker's pools, from the end that docker uses last."""

_OTHERS: Final = (Subnet(172 << 24 | 17 << 16, 16), Subnet(10 << 24 | 88 << 16, 16))
"""What docker and podman take for their default networks as soon as they start."""


def choose_subnet(taken: Iterable[Subnet], *, pool: Iterable[Subnet] = POOL) -> Subnet:
    """The first of the pool that overlaps nothing the host can reach. Raises Conflict."""
    used = [*taken, *_OTHERS]
    for candidate in pool:
        if not any(candidate.overlaps(other) for other in used):
            return candidate
    raise Conflict("cannot make the container bridge: every subnet of the pool overlaps a route of this host")


def choose_address(subnet: Subnet, used: Collection[int]) -> int:
    """The lowest free address after the gateway. Raises Conflict."""
    for address in range(subnet.gateway + 1, subnet.broadcast):
        if address not in used:
            return address
    raise Conflict(f"no address of {subnet} is free")
