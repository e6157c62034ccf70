"""The flags of ``run`` and ``create`` that are about the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tierce.cli.declare import option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from runner.network.wishes import NetworkOptions

NETWORK: Final = (
    option(
        "--network", "--net", "networks", multiple=True, metavar="NAME",
        help="bridge, host, none, container:NAME or a network that you created; may be repeated  [bridge]",
    ),
    option("--network-alias", "--net-alias", "aliases", multiple=True, metavar="NAME", help="One more name there"),
    option("--ip", "address", default="", metavar="ADDRESS", help="IPv4 address, of the network's subnet"),
    option("--ip6", "address6", default="", metavar="ADDRESS", help="IPv6 address, of the network's subnet"),
    option("--mac-address", "mac", default="", metavar="MAC", help="Such as 02:42:ac:11:00:02"),
    option("--dns", multiple=True, metavar="ADDRESS", help="Name server"),
    option("--dns-search", multiple=True, metavar="DOMAIN", help="Search domain; '.' for none"),
    option("--dns-option", "--dns-opt", "dns_options", multiple=True, metavar="OPTION", help="For resolv.conf"),
    option("--add-host", "hosts", multiple=True, metavar="NAME:ADDRESS", help="For /etc/hosts; host-gateway works"),
    option(
        "-p", "--publish", multiple=True, metavar="[IP:][PORT:]PORT[/udp]", help="Make a port reachable from here"
    ),
    option("-P", "--publish-all", is_flag=True, help="Publish all that the image exposes, on free ports"),
    option("--expose", multiple=True, metavar="PORT[/udp]", help="One more port for --publish-all"),
)  # fmt: skip


def read_network(flags: Mapping[str, Any]) -> NetworkOptions:
    """What they say. Raises InvalidInput."""
    from runner.network.files import Dns
    from runner.network.wishes import NetworkOptions

    return NetworkOptions(
        networks=tuple(flags["networks"]),
        aliases=tuple(flags["aliases"]),
        address=flags["address"],
        address6=flags["address6"],
        mac=flags["mac"],
        dns=Dns(tuple(flags["dns"]), tuple(flags["dns_search"]), tuple(flags["dns_options"])),
        hosts=_hosts(flags["hosts"]),
    )


def _hosts(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if not words:
        return ()
    from tierce.build.step_limits import parse_hosts

    return parse_hosts(words)
