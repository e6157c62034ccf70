"""``network``: create, ls, inspect, rm, prune, connect, disconnect."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image.errors import Cancelled, InvalidInput, TierceError
from tierce.cli.command import Settings, confirm, format_option
from tierce.cli.declare import Ended, argument, command, option
from tierce.cli.filters import filter_option, parse_filters
from tierce.cli.output import echo

if TYPE_CHECKING:
    from runner.network.networks import Network, Networks

HEADERS: Final = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
}  # fmt: skip
_FILTERS: Final = ("dangling", "driver", "id", "label", "name", "scope", "type")
_SHORT: Final = 12


@command(
    "create",
    short_help="Create a network",
    examples="""
tierce network create web
tierce network create --subnet 172.30.0.0/24 --gateway 172.30.0.1 web
tierce network create --internal --label project=shop database
tierce network create --ipv6 --subnet fd00:1::/64 six
""",
)
@argument("name", metavar="NETWORK")
@option("-d", "--driver", default="bridge", metavar="NAME", help="bridge is the one there is")
@option("--subnet", "subnets", multiple=True, metavar="CIDR", help="One of each family  [a free one]")
@option("--gateway", "gateways", multiple=True, metavar="ADDRESS", help="The bridge's own  [the first]")
@option("--ip-range", "ranges", multiple=True, metavar="CIDR", help="Where containers get addresses from")
@option("--internal", is_flag=True, help="No way out, and none in")
@option("--ipv6", is_flag=True, help="Addresses of IPv6 too")
@option("--attachable", is_flag=True, help="For docker's sake: every network is")
@option("--ipv4/--no-ipv4", default=True, hidden=True, help="For docker's sake: every network has it")
@option("--ipam-driver", default="default", hidden=True, help="default is the one there is")
@option("--scope", default="local", hidden=True, help="local is the one there is")
@option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label")
@option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="Of docker's bridge driver")
def create(
    settings: Settings,
    name: str,
    driver: str,
    subnets: Sequence[str],
    gateways: Sequence[str],
    ranges: Sequence[str],
    internal: bool,
    ipv6: bool,
    attachable: bool,
    ipv4: bool,
    ipam_driver: str,
    scope: str,
    labels: Sequence[str],
    options: Sequence[str],
) -> None:
    """Create a network whose containers know each other by name. Prints its id.

    The bridge appears with the first container and goes with the last.
    """
    from runner.network.networks import Network, check_name, check_options, make_pools
    from tierce.networks import define, new_id

    if driver != "bridge":
        raise InvalidInput(f"network driver {driver!r} is not supported, use bridge")
    if not ipv4:
        raise InvalidInput("a network without IPv4 is not supported")
    if ipam_driver not in ("", "default"):
        raise InvalidInput(f"IPAM driver {ipam_driver!r} is not supported, use default")
    if scope != "local":
        raise InvalidInput(f"scope {scope!r} is not supported, use local")
    pools = make_pools(subnets, gateways, ranges)
    wanted = Network(
        check_name(name),
        new_id(),
        pools,
        created=settings.clock(),
        internal=internal,
        attachable=attachable,
        ipv6=ipv6 or any(pool.subnet.bits == 128 for pool in pools),
        labels=tuple(_pairs(labels).items()),
        options=check_options(_pairs(options)),
    )
    echo(define(_defined(settings), wanted, _runtime_directory(settings)).id)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _defined(settings: Settings) -> Networks:
    from runner.network.networks import Networks

    return Networks(settings.root / "networks")


def _runtime_directory(settings: Settings) -> Path:
    from runner.runtime.state import runtime_directory

    if os.geteuid() != 0:
        with settings.store():  # which makes an ordinary user's process root of a namespace, and says where it runs
            pass
    return runtime_directory(settings.environ, os.geteuid())


@command(
    "ls",
    short_help="List networks",
    examples="""
tierce network ls
tierce network ls --filter label=project=shop -q
tierce network ls --format '{{.Name}} {{.Driver}}'
""",
)
@option("-q", "--quiet", is_flag=True, help="Only ids")
@option("--no-trunc", is_flag=True, help="Whole ids")
@filter_option("dangling=true|false, driver=bridge, id=ID, label=KEY[=VALUE], name=NAME, type=custom|builtin", "-f")
@format_option
def ls(settings: Settings, quiet: bool, no_trunc: bool, filters: Sequence[str], form: str) -> None:
    """List the networks: those that always are, and those that were created."""
    from tierce.cli.tables import render
    from tierce.networks import driver_of, everything

    tests = _tests(parse_filters(filters, _FILTERS), _runtime_directory(settings))
    found = [one for one in everything(_defined(settings), _runtime_directory(settings)) if all(t(one) for t in tests)]
    if quiet and not form:
        echo("".join(f"{one.id if no_trunc else one.id[:_SHORT]}\n" for one in found), nl=False)
        return
    rows = [_row(one, driver_of(one), whole=no_trunc) for one in found]
    echo(render(rows, HEADERS, ["ID", "Name", "Driver", "Scope"], form), nl=False)


def _row(network: Network, driver: str, *, whole: bool) -> dict[str, str]:
    from datetime import UTC, datetime

    from tierce.cli.units import go_time

    return {
        "ID": network.id if whole else network.id[:_SHORT],
        "Name": network.name,
        "Driver": driver,
        "Scope": "local",
        "IPv6": "true" if network.ipv6 else "false",
        "Internal": "true" if network.internal else "false",
        "Labels": ",".join(f"{key}={value}" for key, value in network.labels),
        "CreatedAt": go_time(datetime.fromtimestamp(network.created, UTC)),
    }


def _tests(filters: Mapping[str, Sequence[str]], root: Path) -> list[Callable[[Network], bool]]:
    """What a network must pass: any value of a key, every label. Raises InvalidInput."""
    from runner.network.bridge import users
    from runner.network.networks import PREDEFINED
    from tierce.cli.filters import has_labels
    from tierce.networks import driver_of

    any_of: dict[str, Callable[[Network, str], bool]] = {
        "driver": lambda network, value: driver_of(network) == value,
        "id": lambda network, value: network.id.startswith(value),
        "name": lambda network, value: value in network.name,
        "scope": lambda _network, value: value == "local",
        "type": lambda network, value: (network.name in PREDEFINED) is (value == "builtin"),
        "dangling": lambda network, value: (
            (network.name not in PREDEFINED and not users(root, network)) is (value.lower() in ("true", "1"))
        ),
    }

    def passes(key: str, values: Sequence[str]) -> Callable[[Network], bool]:
        if key == "label":
            return lambda network: has_labels(dict(network.labels), values)
        return lambda network: any(any_of[key](network, value) for value in values)

    return [passes(key, values) for key, values in filters.items()]


@command(
    "inspect",
    short_help="Show everything about one or more networks",
    examples="""
tierce network inspect web
tierce network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' web
""",
)
@argument("words", nargs=-1, required=True, metavar="NETWORK [NETWORK...]")
@option("-f", "--format", "form", default="", metavar="FORMAT", help="'json' or a Go TEMPLATE such as '{{.Id}}'")
@option("-v", "--verbose", is_flag=True, hidden=True)
def inspect(settings: Settings, words: Sequence[str], form: str, verbose: bool) -> None:  # noqa: ARG001  (docker's, for swarms)
    """Show everything about networks, as a JSON array or through a template."""
    from tierce.cli.tables import render_documents
    from tierce.networks import describe, find

    root = _runtime_directory(settings)
    documents = _each(words, lambda word: describe(find(_defined(settings), root, word), root))
    if documents.values or not form:
        echo(render_documents(documents.values, form), nl=False)
    documents.finish()


@command("exists", short_help="Tell by the exit code whether a network exists", examples="tierce network exists web")
@argument("word", metavar="NETWORK")
def exists(settings: Settings, word: str) -> None:
    """End with 0 when there is such a network, with 1 when there is not."""
    from tierce.cli.containers import exit_unless_found
    from tierce.networks import find

    exit_unless_found(lambda: find(_defined(settings), _runtime_directory(settings), word))


class _Each:
    """Results of one action on several words, and what went wrong with some."""

    def __init__(self, values: list[object], problems: list[str]) -> None:
        self.values = values
        self._problems = problems

    def finish(self) -> None:
        for problem in self._problems:
            echo(f"tierce: {problem}", err=True)
        if self._problems:
            raise Ended(1)


def _each(words: Sequence[str], act: Callable[[str], object]) -> _Each:
    values, problems = [], []
    for word in words:
        try:
            values.append(act(word))
        except TierceError as error:
            problems.append(str(error))
    return _Each(values, problems)


@command("rm", short_help="Remove one or more networks", examples="tierce network rm web")
@argument("words", nargs=-1, required=True, metavar="NETWORK [NETWORK...]")
@option("-f", "--force", is_flag=True, help="No error when there is none of this name")
def rm(settings: Settings, words: Sequence[str], force: bool) -> None:
    """Remove networks that no container is on."""
    from image.errors import NotFound
    from tierce.networks import remove

    def act(word: str) -> str:
        try:
            remove(_defined(settings), _runtime_directory(settings), word)
        except NotFound:
            if not force:
                raise
        return word

    done = _each(words, act)
    echo("".join(f"{word}\n" for word in done.values), nl=False)
    done.finish()


@command("prune", short_help="Remove networks that no container is on", examples="tierce network prune -f")
@option("-f", "--force", is_flag=True, help="Do not ask")
@filter_option("label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME")
def prune(settings: Settings, force: bool, filters: Sequence[str]) -> None:
    """Remove every created network that no container is on."""
    from tierce.cli.filters import passes_labels
    from tierce.cli.units import parse_until
    from tierce.networks import remove_unused

    wanted = parse_filters(filters, ("label", "label!", "until"))
    limits = [parse_until(word, settings.clock()) for word in wanted.get("until", ())]

    def chosen(network: Network) -> bool:
        return passes_labels(dict(network.labels), wanted) and all(network.created < limit for limit in limits)

    if not force and not confirm(
        "WARNING! This will remove all custom networks not used by at least one container.\n"
        "Are you sure you want to continue?"
    ):
        raise Cancelled("network prune has been cancelled")
    removed = remove_unused(_defined(settings), _runtime_directory(settings), chosen)
    if removed:
        echo("Deleted Networks:\n" + "".join(f"{network.name}\n" for network in removed))


@command(
    "connect",
    short_help="Put a container on a network",
    examples="tierce network connect --alias db --ip 172.30.0.9 web postgres",
)
@argument("network")
@argument("container")
@option("--alias", "aliases", multiple=True, metavar="NAME", help="One more name there")
@option("--ip", "address", default="", metavar="ADDRESS", help="IPv4 address, of the network's subnet")
@option("--ip6", "address6", default="", metavar="ADDRESS", help="IPv6 address, of the network's subnet")
def connect(
    settings: Settings, network: str, container: str, aliases: Sequence[str], address: str, address6: str
) -> None:
    """Put a container on one more network: as it runs, or for when it starts."""
    from runner.containers.records import Records
    from runner.network.wishes import Wish
    from tierce.networks import join

    wish = Wish(network, tuple(aliases), address, address6)
    with settings.store() as store:
        warnings = join(_defined(settings), Records(store), _runtime_directory(settings), container, wish)
    for warning in warnings:
        echo(f"WARNING: {warning}", err=True)


@command(
    "disconnect",
    short_help="Take a container off a network",
    examples="tierce network disconnect web postgres",
)
@argument("network")
@argument("container")
@option("-f", "--force", is_flag=True, help="For docker's sake: it is always so")
def disconnect(settings: Settings, network: str, container: str, force: bool) -> None:  # noqa: ARG001  (docker's)
    """Take a container off a network: as it runs, or for when it starts."""
    from runner.containers.records import Records
    from tierce.networks import part

    with settings.store() as store:
        part(_defined(settings), Records(store), _runtime_directory(settings), network, container)
