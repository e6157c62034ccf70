"""The contents of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container. Pure.

Docker's rules: on the host's network the host's resolv.conf is taken as it is. Otherwise name
servers on loopback are left out, because they mean the container's own loopback, and when
none remains Google's are used. systemd-resolved's stub is replaced by its upstream list.
"""

from __future__ import annotations

from typing import Final

from image.value import dataclass

RESOLV_CONF: Final = "/etc/resolv.conf"
RESOLVED_UPSTREAM: Final = "/run/systemd/resolve/resolv.conf"
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


def hosts(hostname: str, address: str = "") -> str:
    """Local names, then the container's own when it has an address."""
    return _LOCAL_NAMES + (f"{address}\t{hostname}\n" if address else "")


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


def _is_loopback_server(line: str) -> bool:
    words = line.split()
    return len(words) >= 2 and words[0] == "nameserver" and (words[1].startswith("127.") or words[1] == "::1")
