"""Networks as users define them: one small file each, which outlives every container and reboot.

    <directory>/NAME        JSON, by a rename or a link: whole or absent

Files and not rows of the store's database: a network is read at every start of a container and
by the resolver beside it, which must not pay for SQLite; there are few; and no change spans two.
What is up (bridges, addresses, rules) is not recorded here but in the runtime directory, because
a reboot takes it away: see ``bridge``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from image.bare import dumps, loads
from image.errors import Conflict, InvalidInput, NameInUse, NotFound, StorageError
from image.paths import Path
from image.value import dataclass
from runner.network.addresses import V4, V6, Subnet, parse_address, parse_address6, parse_subnet, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

DEFAULT: Final = "bridge"
PREDEFINED: Final = (DEFAULT, "host", "none")
MTU: Final = 1500
_ALLOWED: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_BRIDGE: Final = "com.docker.network.bridge."
_OPTIONS: Final = frozenset(
    {
        f"{_BRIDGE}name", f"{_BRIDGE}enable_icc", f"{_BRIDGE}enable_ip_masquerade", f"{_BRIDGE}host_binding_ipv4",
        "com.docker.network.driver.mtu", "mtu",
    }
)  # fmt: skip
_LONGEST_INTERFACE: Final = 15


@dataclass(frozen=True, slots=True)
class Pool:
    """One subnet with the bridge's own address; containers get addresses of ``ip_range``, if there is one."""

    subnet: Subnet
    gateway: int
    ip_range: Subnet | None = None

    @property
    def gateway_text(self) -> str:
        return spelled(self.gateway, self.subnet.bits)


@dataclass(frozen=True, slots=True)
class Network:
    """A bridge as it is wanted. ``created`` is in seconds since 1970; at most one pool a family."""

    name: str
    id: str
    pools: tuple[Pool, ...]
    created: float = 0.0
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    @property
    def bridge(self) -> str:
        """The name of the interface."""
        return dict(self.options).get(f"{_BRIDGE}name") or f"br-{self.id[:12]}"

    @property
    def table(self) -> str:
        """The nftables table."""
        return f"tierce_{self.id[:12]}"

    @property
    def mtu(self) -> int:
        options = dict(self.options)
        return int(options.get("com.docker.network.driver.mtu") or options.get("mtu") or MTU)

    @property
    def icc(self) -> bool:
        """Whether containers of this network may talk to each other."""
        return _truth(dict(self.options).get(f"{_BRIDGE}enable_icc", "true"))

    @property
    def masquerade(self) -> bool:
        return _truth(dict(self.options).get(f"{_BRIDGE}enable_ip_masquerade", "true"))

    @property
    def host_binding(self) -> str:
        """The address of the host that ports are published on when the user names none; "" for all."""
        return dict(self.options).get(f"{_BRIDGE}host_binding_ipv4", "")

    @property
    def resolves(self) -> bool:
        """Whether names are resolved here: docker's rule is everywhere but on the default network."""
        return self.name != DEFAULT

    def pool(self, bits: int) -> Pool | None:
        return next((pool for pool in self.pools if pool.subnet.bits == bits), None)


def _truth(text: str) -> bool:
    return text.strip().lower() in {"1", "t", "true", "yes"}


# --- what a user wants, checked -----------------------------------------------------------


def check_name(name: str) -> str:
    """Raises InvalidInput, NameInUse for the names that docker keeps to itself."""
    if name in (*PREDEFINED, "default", "container"):
        raise NameInUse(f"network {name!r} is predefined: choose another name")
    if len(name) < 2 or len(name) > 128 or not _ALLOWED.issuperset(name) or not name[0].isalnum():
        raise InvalidInput(
            f"invalid network name {name!r}: use letters, digits and _.- after a letter or digit, two at least"
        )
    return name


def make_pools(subnets: Iterable[str], gateways: Iterable[str], ranges: Iterable[str]) -> tuple[Pool, ...]:
    """``--subnet``, ``--gateway`` and ``--ip-range``, matched by what lies in what. Raises InvalidInput."""
    wanted = [_subnet(text) for text in subnets]
    inside = {at: _address_in(text, wanted, "gateway") for at, text in enumerate(gateways)}
    narrowed = [_range_in(text, wanted) for text in ranges]
    pools = []
    for subnet in wanted:
        own = [address for owner, address in inside.values() if owner == subnet]
        pools.append(
            Pool(subnet, own[0] if own else subnet.gateway, next((r for s, r in narrowed if s == subnet), None))
        )
    for bits in (V4, V6):
        if sum(pool.subnet.bits == bits for pool in pools) > 1:
            raise InvalidInput("a bridge network has at most one subnet of each address family")
    return tuple(pools)


def _subnet(text: str) -> Subnet:
    subnet = parse_subnet(text)
    if subnet is None:
        raise InvalidInput(f"invalid subnet {text!r}: write ADDRESS/PREFIX, such as 172.20.0.0/16")
    if subnet.bits - subnet.prefix < 2:
        raise InvalidInput(f"invalid subnet {text!r}: too small for a gateway and a container")
    return subnet


def _address_in(text: str, subnets: Iterable[Subnet], what: str) -> tuple[Subnet, int]:
    bits = V6 if ":" in text else V4
    address = parse_address6(text) if bits == V6 else parse_address(text)
    if address is None:
        raise InvalidInput(f"invalid {what} {text!r}: not an address")
    for subnet in subnets:
        if subnet.bits == bits and address in subnet:
            return subnet, address
    raise InvalidInput(f"invalid {what} {text!r}: no --subnet contains it")


def _range_in(text: str, subnets: Iterable[Subnet]) -> tuple[Subnet, Subnet]:
    area = parse_subnet(text)
    if area is None:
        raise InvalidInput(f"invalid ip-range {text!r}: write ADDRESS/PREFIX")
    for subnet in subnets:
        if subnet.overlaps(area) and subnet.prefix <= area.prefix:
            return subnet, area
    raise InvalidInput(f"invalid ip-range {text!r}: no --subnet contains it")


def check_options(options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """``--opt`` words of the bridge driver. Raises InvalidInput."""
    for key, value in options.items():
        if key not in _OPTIONS:
            raise InvalidInput(f"network option {key!r} is not supported; there are: {', '.join(sorted(_OPTIONS))}")
        if key.endswith("mtu") and not (value.isascii() and value.isdigit() and 68 <= int(value) <= 65535):
            raise InvalidInput(f"network option {key}={value!r}: the MTU is a number from 68 to 65535")
        if key == f"{_BRIDGE}name" and not _is_interface_name(value):
            raise InvalidInput(f"network option {key}={value!r}: not a name for an interface (at most 15 characters)")
        if key == f"{_BRIDGE}host_binding_ipv4" and parse_address(value) is None:
            raise InvalidInput(f"network option {key}={value!r}: not an IPv4 address")
    return tuple(sorted(options.items()))


def _is_interface_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_INTERFACE and _ALLOWED.issuperset(name) and name not in (".", "..")


def check_against(network: Network, others: Iterable[Network]) -> None:
    """Raises Conflict when subnets overlap or both want the same interface."""
    for other in others:
        if network.bridge == other.bridge:
            raise Conflict(f"cannot create network {network.name}: network {other.name} has bridge {other.bridge}")
        for pool in network.pools:
            for theirs in other.pools:
                if pool.subnet.overlaps(theirs.subnet):
                    raise Conflict(
                        f"cannot create network {network.name}: {pool.subnet} overlaps "
                        f"{theirs.subnet} of network {other.name}"
                    )


# --- on disk ------------------------------------------------------------------------------


class Networks:
    """The defined networks of one store. Reading takes no lock: files appear and vanish whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Network]:
        """By name. A file that cannot be read as a network is left out."""
        with suppress(FileNotFoundError):
            names = sorted(name for name in os.listdir(self.directory) if not name.startswith("."))
            return [network for name in names if (network := self._read(name)) is not None]
        return []

    def find(self, word: str) -> Network:
        """By name, id, or the start of an id that only one network has. Raises NotFound, Conflict."""
        if (named := self._read(word)) is not None:
            return named
        matches = [network for network in self.all() if len(word) > 1 and network.id.startswith(word)]
        if not matches:
            raise NotFound(f"network {word} not found (tierce network create {word})")
        if len(matches) > 1:
            raise Conflict(f"network {word} is ambiguous: {', '.join(network.name for network in matches)}")
        return matches[0]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Alone among those that create or remove networks here. Raises StorageError."""
        import fcntl

        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot keep networks in {self.directory}: {(error.strerror or '').lower()}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def add(self, network: Network) -> None:
        """Call it while ``changing``. Raises NameInUse, StorageError."""
        target = self.directory / network.name
        if target.exists():
            raise NameInUse(f"network with name {network.name} already exists")
        partial = self.directory / f".{network.id}"
        try:
            with open(partial, "w", encoding="utf-8") as file:
                file.write(encode(network))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write network {network.name}: {(error.strerror or '').lower()}") from error

    def remove(self, network: Network) -> None:
        """Forget it; the caller has seen that nobody uses it."""
        (self.directory / network.name).unlink(missing_ok=True)

    def _read(self, name: str) -> Network | None:
        if not name or not _ALLOWED.issuperset(name) or name.startswith("."):
            return None
        with suppress(OSError, ValueError, KeyError, TypeError):
            return decode((self.directory / name).read_text(encoding="utf-8"))
        return None


def encode(network: Network) -> str:
    """As JSON, for a file."""
    pools = [
        {"subnet": str(pool.subnet), "gateway": pool.gateway_text, "range": str(pool.ip_range or "")}
        for pool in network.pools
    ]
    scalars = {key: getattr(network, key) for key in ("name", "id", "created", "internal", "attachable", "ipv6")}
    return dumps({**scalars, "pools": pools, "labels": dict(network.labels), "options": dict(network.options)})


def decode(text: str) -> Network:
    """Raises ValueError, KeyError or TypeError when the text is no network."""
    record: dict[str, Any] = loads(text)
    return Network(
        name=record["name"],
        id=record["id"],
        pools=tuple(_pool(entry) for entry in record["pools"]),
        created=record["created"],
        internal=record["internal"],
        attachable=record["attachable"],
        ipv6=record["ipv6"],
        labels=tuple(record["labels"].items()),
        options=tuple(record["options"].items()),
    )


def _pool(entry: Mapping[str, str]) -> Pool:
    subnet = parse_subnet(entry["subnet"])
    gateway = parse_address6(entry["gateway"]) if ":" in entry["gateway"] else parse_address(entry["gateway"])
    if subnet is None or gateway is None:
        raise ValueError(entry)
    return Pool(subnet, gateway, parse_subnet(entry["range"]))
