"""What a user says of a container's network → ``Networking``. Reads the defined networks.

Docker's grammar: ``--network NAME`` or ``--network name=NAME,alias=A,ip=ADDRESS,…``, several
times; the flags for one network (``--ip``, ``--network-alias``…) are for the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from image.errors import Conflict, InvalidInput, NotFound
from image.paths import Path
from image.value import dataclass, replace
from runner.network.addresses import parse_address, parse_address6
from runner.network.files import Dns
from runner.network.modes import Networking, NetworkMode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_MODES: Final = ("none", "host")
_JOINED: Final = "container:"
_DEFAULT: Final = "bridge"
_KEYS: Final = ("ip", "ip6", "mac-address")


@dataclass(frozen=True, slots=True)
class Wish:
    """One ``--network``."""

    name: str
    aliases: tuple[str, ...] = ()
    address: str = ""
    address6: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """As the user wrote them; ``networks`` in the order of the command line, ``hosts`` for /etc/hosts.

    ``emptied`` is a container that was taken off its last network.
    """

    networks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    address: str = ""
    address6: str = ""
    mac: str = ""
    dns: Dns = Dns()  # a frozen value
    hosts: tuple[tuple[str, str], ...] = ()
    emptied: bool = False

    @property
    def mode(self) -> NetworkMode:
        """Raises InvalidInput."""
        return mode_of(self.networks)


def mode_of(words: Sequence[str]) -> NetworkMode:
    """The kind of network, without a look at which networks are defined. Raises InvalidInput."""
    names = [parse_wish(word).name for word in words]
    alone = [name for name in names if name in _MODES or name.startswith(_JOINED)]
    if alone and len(names) > 1:
        raise InvalidInput(f"network {alone[0]!r} cannot be combined with other networks")
    if not alone:
        return NetworkMode.BRIDGE
    return NetworkMode.CONTAINER if alone[0].startswith(_JOINED) else NetworkMode(alone[0])


def parse_wish(word: str) -> Wish:
    """``NAME`` or ``name=NAME,key=value,…``. Raises InvalidInput."""
    if "=" not in word:
        return Wish(word)
    wish = Wish("")
    for key, _, value in (part.partition("=") for part in word.split(",")):
        if key == "name":
            wish = replace(wish, name=value)
        elif key == "alias":
            wish = replace(wish, aliases=(*wish.aliases, value))
        elif key in _KEYS:
            wish = _with_key(wish, key, value)
        else:
            raise InvalidInput(
                f"invalid --network {word!r}: {key!r} is not known; there are name, alias, {', '.join(_KEYS)}"
            )
    if not wish.name:
        raise InvalidInput(f"invalid --network {word!r}: the name is missing")
    return wish


def _with_key(wish: Wish, key: str, value: str) -> Wish:
    match key:
        case "ip":
            return replace(wish, address=value)
        case "ip6":
            return replace(wish, address6=value)
        case _:
            return replace(wish, mac=value)


def network_names(options: NetworkOptions) -> tuple[str, ...]:
    """What ``ps`` lists. Raises InvalidInput."""
    return tuple(map(_name_of, options.networks or (_DEFAULT,)))


def with_network(options: NetworkOptions, wish: Wish) -> NetworkOptions:
    """One more network, for the next start. Raises Conflict where it is there, or where none can be added."""
    if options.mode is NetworkMode.NONE and not options.emptied:
        raise Conflict("a container on network none has no network of bridges that another could join")
    if options.mode not in (NetworkMode.BRIDGE, NetworkMode.NONE):
        raise Conflict(f"a container on network {options.networks[0]} has no network of its own")
    words = () if options.emptied else options.networks or (_DEFAULT,)
    if wish.name in map(_name_of, words):
        raise Conflict(f"the container is already on network {wish.name}")
    more = [f"alias={alias}" for alias in wish.aliases]
    more += [f"{key}={value}" for key, value in (("ip", wish.address), ("ip6", wish.address6)) if value]
    word = ",".join([f"name={wish.name}", *more]) if more else wish.name
    return replace(options, networks=(*words, word), emptied=False)


def without_network(options: NetworkOptions, name: str) -> NetworkOptions:
    """Without one; its own flags go with the first. Raises NotFound where the container is not on it."""
    words = options.networks or (_DEFAULT,)
    left = tuple(word for word in words if _name_of(word) != name)
    if options.mode is not NetworkMode.BRIDGE or left == words:
        raise NotFound(f"the container is not on network {name}")
    if _name_of(words[0]) == name:
        options = replace(options, aliases=(), address="", address6="", mac="")
    return replace(options, networks=left or ("none",), emptied=not left)


def _name_of(word: str) -> str:
    name = parse_wish(word).name
    return _DEFAULT if name in ("default", "") else name


def resolve(
    options: NetworkOptions,
    *,
    defined: Path,
    root: Path,
    container: str,
    name: str,
    find_container: Callable[[str], Path],
) -> Networking:
    """``defined`` is the directory of networks, ``root`` the runtime directory.

    The container is known by ``name`` and by the start of its id. ``find_container`` gives the
    directory of a running one. Raises InvalidInput, NotFound.
    """
    mode = options.mode
    _check_servers(options.dns.servers)
    if mode is not NetworkMode.BRIDGE:
        _refuse_addresses(options, mode)
        joined = find_container(options.networks[0].removeprefix(_JOINED)) if mode is NetworkMode.CONTAINER else None
        return Networking(mode, (), name, joined, options.dns)
    wishes = _with_flags([parse_wish(word) for word in options.networks] or [Wish("bridge")], options)
    return _on_bridges(wishes, defined, root, (name, container[:12]), options.dns)


def _on_bridges(wishes: Iterable[Wish], defined: Path, root: Path, names: tuple[str, ...], dns: Dns) -> Networking:
    from runner.network import bridge
    from runner.network.networks import DEFAULT, Networks

    known = Networks(defined)
    attachments: list[bridge.Attachment] = []
    for wish in wishes:
        default = wish.name in (DEFAULT, "default", "")
        network = bridge.default_network(root) if default else known.find(wish.name)
        if default and (wish.address or wish.address6):
            raise InvalidInput("an address can be chosen only on networks that you created, with a subnet")
        if default and wish.aliases:
            raise InvalidInput("aliases are only for networks that you created: the default one has no names")
        if wish.mac:
            bridge.parse_mac(wish.mac)
        aliases = tuple(dict.fromkeys(word for word in (*names, *wish.aliases) if word))
        attachment = bridge.Attachment(network, aliases, wish.address, wish.address6, wish.mac)
        if network.id in [one.network.id for one in attachments]:
            raise InvalidInput(f"network {network.name} is given twice")
        attachments.append(attachment)
    reserved = tuple(pool.subnet for network in known.all() for pool in network.pools)
    return Networking(NetworkMode.BRIDGE, tuple(attachments), names[0], None, dns, reserved)


def _with_flags(wishes: list[Wish], options: NetworkOptions) -> list[Wish]:
    first, *rest = wishes
    first = replace(
        first,
        aliases=(*first.aliases, *options.aliases),
        address=options.address or first.address,
        address6=options.address6 or first.address6,
        mac=options.mac or first.mac,
    )
    return [first, *rest]


def _refuse_addresses(options: NetworkOptions, mode: NetworkMode) -> None:
    for flag, value in (("--ip", options.address), ("--ip6", options.address6), ("--mac-address", options.mac)):
        if value:
            raise InvalidInput(f"conflicting options: {flag} and the network mode {mode.value}")
    if options.aliases:
        raise InvalidInput(f"conflicting options: --network-alias and the network mode {mode.value}")


def _check_servers(servers: Iterable[str]) -> None:
    for server in servers:
        if parse_address(server) is None and parse_address6(server) is None:
            raise InvalidInput(f"invalid --dns {server!r}: not an address")


def _names(directory: Path) -> tuple[str, str]:
    from runner.network import endpoints

    record = endpoints.read(directory)
    return directory.name, record.name if record else ""


def running(root: Path, word: str) -> Path:
    """The directory of a running container by id, the start of one, or name. Raises InvalidInput, Conflict."""
    from runner.runtime import state

    live = state.live(root)
    exact = [path for path in live if word in _names(path)]
    found = exact or [path for path in live if len(word) > 1 and path.name.startswith(word)]
    if not found:
        raise NotFound(f"no running container {word}")
    if len(found) > 1:
        raise Conflict(f"container {word} is ambiguous: {', '.join(path.name[:12] for path in found)}")
    return found[0]
