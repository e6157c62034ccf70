"""Address translation and published ports: one nftables table, replaced as a whole.

``ruleset`` says what the table must be for the containers that live; ``apply`` makes it so in
one transaction. So nothing is ever added to or taken from rules of unknown state, and a
killed process leaves at most rules that the next change drops.

A published port answers on the host's addresses, on 127.0.0.1 (route_localnet of the bridge)
and for sibling containers (hairpin masquerade). Unpublished ports are dropped when they are
asked for from outside the bridge.

Docker sets the policy of iptables' FORWARD chain to drop, and a verdict of ours cannot lift a
drop of another table. Where such a chain exists, ``open_forward`` puts two accepting rules
for our bridge in front, marked by a comment, and ``close_forward`` takes them out. A docker
daemon started after the bridge shuts it until the next container of ours starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from image.errors import TierceError
from image.value import dataclass
from runner.network.addresses import Subnet, dotted
from runner.network.ports import Port
from store import kernel

_COMMENT = "tierce"


@dataclass(frozen=True, slots=True)
class Published:
    """The ports of one container."""

    address: int
    ports: tuple[Port, ...]


def ruleset(table: str, bridge: str, subnet: Subnet, containers: Iterable[Published]) -> str:
    """Commands that replace ``table``. Pure."""
    redirects = [_redirect(container.address, port) for container in containers for port in container.ports]
    ports = "\n".join(f"    {line}" for line in redirects)
    return f"""\
table ip {table}
delete table ip {table}
table ip {table} {{
  chain guard {{
    type filter hook prerouting priority raw;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop comment "route_localnet must not open loopback services"
  }}
  chain published {{
{ports}
  }}
  chain incoming {{
    type nat hook prerouting priority dstnat;
    fib daddr type local jump published
  }}
  chain local {{
    type nat hook output priority -100;
    fib daddr type local jump published
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    oifname "{bridge}" ct status dnat ip saddr {{ 127.0.0.0/8, {subnet} }} masquerade
  }}
  chain forward {{
    type filter hook forward priority filter;
    oifname != "{bridge}" accept
    iifname "{bridge}" accept
    ct state established,related accept
    ct status dnat accept
    drop
  }}
}}
"""


def _redirect(address: int, port: Port) -> str:
    where = "" if port.host_address == "0.0.0.0" else f"ip daddr {port.host_address} "  # noqa: S104  # no address
    return f"{where}{port.protocol} dport {port.host_port} dnat to {dotted(address)}:{port.container_port}"


def apply(commands: str) -> None:
    """Run nft commands as one transaction. Raises TierceError, having changed nothing."""
    problem = kernel.run_nftables(commands.encode())
    if problem is None:
        problem = _run_program(["nft", "-f", "-"], commands)
    if problem:
        raise TierceError(f"cannot set up address translation: nft: {problem.splitlines()[0]}")


def remove(table: str) -> None:
    """Remove the table; nothing happens when it is absent."""
    apply(f"table ip {table}\ndelete table ip {table}\n")


def _run_program(argv: Sequence[str], text: str = "") -> str:
    """What the program complains about, "" when it is content."""
    import subprocess

    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{argv[0]} is not installed (install nftables)"
    return "" if done.returncode == 0 else done.stderr.strip() or f"{argv[0]} failed with status {done.returncode}"


def _forward_rules(bridge: str) -> tuple[list[str], ...]:
    marked = ["-m", "comment", "--comment", _COMMENT, "-j", "ACCEPT"]
    return (["FORWARD", "-i", bridge, *marked], ["FORWARD", "-o", bridge, *marked])


def open_forward(bridge: str) -> str:
    """Let the bridge through an iptables FORWARD chain, if there is one. A warning, or "".

    Outward traffic and answers are free; what comes in has passed our own forward chain.
    """
    if not _has_iptables_forward():
        return ""
    for rule in _forward_rules(bridge):
        if _run_program(["iptables", "-w", "5", "-C", *rule]):
            problem = _run_program(["iptables", "-w", "5", "-I", *rule])
            if problem:
                return f"containers may have no network: iptables' FORWARD chain could not be opened: {problem}"
    return ""


def close_forward(bridge: str) -> None:
    """Take our rules out again, however often they are there."""
    if _has_iptables_forward():
        for rule in _forward_rules(bridge):
            while not _run_program(["iptables", "-w", "5", "-D", *rule]):
                pass


def _has_iptables_forward() -> bool:
    """Whether docker, or somebody else, uses iptables' filter table: as nftables or the old way."""
    if kernel.run_nftables(b"list chain ip filter FORWARD") == "":
        return True
    try:
        with open("/proc/net/ip_tables_names") as file:
            return "filter" in file.read().split()
    except OSError:
        return False
