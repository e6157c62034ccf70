"""The contents of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container. Pure.

Docker's rules: on the host's network the host's resolv.conf is taken as it is. Otherwise name
servers on loopback are left out, because they mean the container's own loopback, and when
none remains Google's are used. systemd-resolved's stub is replaced by its upstream list.
"""

from __future__ import annotations

from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

RESOLV_CONF: Final = "/etc/resolv.conf"
RESOLVED_UPSTREAM: Final = "/run/systemd/resolve/resolv.conf"
RESOLVER: Final = "127.0.0.11"
"""Our own resolver, inside a container on a network that has names; docker's address for it."""
_RESOLVED_STUB: Final = "127.0.0.53"
_FALLBACK: Final = ("8.8.8.8", "8.8.4.4")
_LOCAL_NAMES: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts(hostname: str, *addresses: str) -> str:
    """Local names, then the container's own at each of its addresses."""
    return _LOCAL_NAMES + "".join(f"{address}\t{hostname}\n" for address in addresses)


@dataclass(frozen=True, slots=True)
class Dns:
    """``--dns``, ``--dns-search`` (``.`` for none) and ``--dns-option``."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def with_wishes(host: str, wanted: Dns) -> str:
    """The host's text with other name servers, search domains and options, where some are given.

    An option replaces the host's of the same name.
    """
    words = [line.split() for line in host.splitlines()]
    own = [word for line in words if line[:1] == ["options"] for word in line[1:]]
    names = {option.partition(":")[0] for option in wanted.options}
    kept = [word for word in own if word.partition(":")[0] not in names]
    domains = [word for line in words if line[:1] in (["search"], ["domain"]) for word in line[1:]]
    lines = [f"nameserver {server}" for server in wanted.servers or name_servers(host)]
    if chosen := [domain for domain in wanted.search or domains if domain != "."]:
        lines.append(f"search {' '.join(chosen)}")
    if both := [*kept, *wanted.options]:
        lines.append(f"options {' '.join(both)}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The text, and a warning when it is not the host's."""

    text: str
    warning: str = ""


def uses_resolved_stub(host: str) -> bool:
    """Whether the only name server is systemd-resolved's: then read RESOLVED_UPSTREAM instead."""
    return name_servers(host) == [_RESOLVED_STUB]


def name_servers(text: str) -> list[str]:
    words = (line.split() for line in text.splitlines())
    return [line[1] for line in words if len(line) >= 2 and line[0] == "nameserver"]


def resolv_conf(host: str) -> ResolvConf:
    """For a network of the container's own, from the host's text."""
    lines = [line for line in host.splitlines() if not _is_loopback_server(line)]
    if name_servers("\n".join(lines)):
        return ResolvConf("\n".join(lines) + "\n")
    lines += [f"nameserver {server}" for server in _FALLBACK]
    found = ", ".join(name_servers(host)) or "none"
    warning = (
        f"no name server of the host is reachable from a container ({RESOLV_CONF} has: {found}); "
        f"using {', '.join(_FALLBACK)}"
    )
    return ResolvConf("\n".join(lines) + "\n", warning)


def for_resolver(host: str, wanted: Dns) -> str:
    """For a network that has names: our resolver, which is asked for every name as it is."""
    options = (
        wanted.options if any(word.startswith("ndots:") for word in wanted.options) else (*wanted.options, "ndots:0")
    )
    return with_wishes(host, Dns((RESOLVER,), wanted.search, options))


def _is_loopback_server(line: str) -> bool:
    words = line.split()
    return len(words) >= 2 and words[0] == "nameserver" and (words[1].startswith("127.") or words[1] == "::1")
