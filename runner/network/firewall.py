"""Address translation and published ports: one nftables table a network, replaced as a whole.

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

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

from image.errors import TierceError
from image.value import dataclass
from runner.network.addresses import V4, V6, dotted, spelled
from runner.network.networks import Network
from runner.network.ports import ANY, Port
from store.linux import nftables

_COMMENT = "tierce"


@dataclass(frozen=True, slots=True)
class Published:
    """The ports of one container, at its addresses; no IPv6 address is 0."""

    address: int
    ports: tuple[Port, ...]
    address6: int = 0


def ruleset(network: Network, containers: Iterable[Published], *, fresh: bool = False) -> str:
    """Commands that replace the network's table, or with ``fresh`` make it and fail when it is there. Pure."""
    containers = list(containers)
    redirects = [line for container in containers for line in _redirects(container)]
    bridge = network.bridge
    start = "create" if fresh else f"table inet {network.table}\ndelete"
    return f"""\
{start} table inet {network.table}
table inet {network.table} {{
  chain guard {{
    type filter hook prerouting priority raw;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop comment "route_localnet must not open loopback services"
  }}
  chain published {{
{_block(redirects)}
  }}
  chain incoming {{
    type nat hook prerouting priority dstnat;
    fib daddr type local jump published
  }}
  chain local {{
    type nat hook output priority -100;
    ip6 daddr ::1 return comment "such a packet can never leave the host"
    fib daddr type local jump published
  }}
  chain refused {{
    type filter hook input priority filter;
{_block(_refused(containers))}
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
{_block(_leaving(network))}
  }}
  chain forward {{
    type filter hook forward priority filter;
{_block(_forward(network))}
  }}
}}
"""


def _block(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _redirects(container: Published) -> Iterator[str]:
    for port in container.ports:
        six = ":" in port.host_address
        where = "" if port.host_address in ANY else f"ip{'6' * six} daddr {port.host_address} "
        target = f"[{spelled(container.address6, V6)}]" if six else dotted(container.address)
        family = f"meta nfproto ipv{6 if six else 4}"
        yield f"{family} {where}{port.protocol} dport {port.host_port} dnat ip{'6' * six} to {target}:{port.container_port}"


def _refused(containers: Iterable[Published]) -> Iterator[str]:
    """Our own socket keeps the port on ::1, where nothing can answer: a client shall try 127.0.0.1 at once."""
    for container in containers:
        for port in container.ports:
            if port.host_address == "::" and port.protocol == "tcp":
                yield f'iifname "lo" ip6 daddr ::1 tcp dport {port.host_port} reject with tcp reset'


def _leaving(network: Network) -> Iterator[str]:
    """Outward as the host; and back through the bridge as the bridge, for siblings that came by a published port."""
    bridge = network.bridge
    for pool in network.pools:
        family = "ip" if pool.subnet.bits == V4 else "ip6"
        if network.masquerade and not network.internal:
            yield f'{family} saddr {pool.subnet} oifname != "{bridge}" masquerade'
        own = f"127.0.0.0/8, {pool.subnet}" if family == "ip" else f"{pool.subnet}"
        yield f'oifname "{bridge}" ct status dnat {family} saddr {{ {own} }} masquerade'


def _forward(network: Network) -> Iterator[str]:
    """What passes: within, outward, answers and what a published port let in."""
    bridge = network.bridge
    yield f'oifname != "{bridge}" iifname != "{bridge}" accept'
    if network.internal:
        yield f'iifname "{bridge}" oifname "{bridge}" accept'
    else:
        yield f'oifname != "{bridge}" accept'
        yield f'iifname "{bridge}" accept'
        yield "ct state established,related accept"
        yield "ct status dnat accept"
    yield "drop"


def apply(commands: str) -> None:
    """Run nft commands as one transaction. Raises TierceError, having changed nothing."""
    problem = nftables.run_nftables(commands.encode())
    if problem is None:
        problem = _run_program(["nft", "-f", "-"], commands)
    if problem:
        raise TierceError(f"cannot set up address translation: nft: {problem.splitlines()[0]}")


def establish(network: Network, containers: Iterable[Published]) -> None:
    """The table of a network that comes up; one that was left of it is replaced. Raises TierceError.

    To delete a table, even one that is not there, has the kernel wait ten milliseconds when all is done.
    """
    containers = list(containers)
    try:
        apply(ruleset(network, containers, fresh=True))
    except TierceError:
        apply(ruleset(network, containers))


def remove(table: str) -> None:
    """Remove the table; nothing happens when it is absent."""
    apply(f"table inet {table}\ndelete table inet {table}\n")


def _run_program(argv: Sequence[str], text: str = "") -> str:
    """What the program complains about, "" when it is content."""
    status, said = _run(argv, text)
    return "" if status == 0 else said or f"{argv[0]} failed with status {status}"


def _run(argv: Sequence[str], text: str = "") -> tuple[int, str]:
    """Its status and what it says; ``subprocess`` takes as long to import as the program to run."""
    with ExitStack() as held:
        given, said = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("given", "said"))
        held.callback(os.close, given)
        held.callback(os.close, said)
        os.write(given, text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((given, said, said))]
        try:
            pid = os.posix_spawnp(argv[0], list(argv), os.environ, file_actions=actions)
        except FileNotFoundError:
            return 127, f"{argv[0]} is not installed (install nftables)"
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status, os.pread(said, os.fstat(said).st_size, 0).decode("utf-8", "replace").strip()


def open_forward(bridge: str, *, ipv6: bool) -> str:
    """Let the bridge through the FORWARD chains of iptables, if there are some. A warning, or "".

    Outward traffic and answers are free; what comes in has passed our own forward chain.
    """
    for program in _programs(ipv6=ipv6):
        there = _marked_rules(program, bridge)
        missing = [rule for rule in _forward_rules(bridge) if rule not in there]
        if missing and (problem := _change(program, "-I", missing)):
            return f"containers may have no network: the FORWARD chain of {program} is closed: {problem}"
    return ""


def close_forward(bridge: str, *, ipv6: bool) -> None:
    """Take our rules out again, however often they are there."""
    for program in _programs(ipv6=ipv6):
        if there := _marked_rules(program, bridge):
            _change(program, "-D", there)


def _forward_rules(bridge: str) -> tuple[str, ...]:
    """As iptables spells them."""
    marked = f"-m comment --comment {_COMMENT} -j ACCEPT"
    return f"FORWARD -i {bridge} {marked}", f"FORWARD -o {bridge} {marked}"


def _marked_rules(program: str, bridge: str) -> list[str]:
    """Those of ours that are in the chain, each as often as it is there."""
    _, said = _run([program, "-w", "5", "-S", "FORWARD"])
    rules = [line.removeprefix("-A ") for line in said.splitlines()]
    return [rule for rule in rules if rule in _forward_rules(bridge)]


def _change(program: str, action: str, rules: Sequence[str]) -> str:
    """All of them by one process. A complaint, or ""."""
    lines = "".join(f"{action} {rule}\n" for rule in rules)
    return _run_program([f"{program}-restore", "-w", "5", "--noflush"], f"*filter\n{lines}COMMIT\n")


def _programs(*, ipv6: bool) -> list[str]:
    """Whose FORWARD chain is there: docker, or somebody else, made it, as nftables or the old way."""
    families = [("ip", "iptables"), ("ip6", "ip6tables")] if ipv6 else [("ip", "iptables")]
    return [program for family, program in families if _has_forward(family)]


def _has_forward(family: str) -> bool:
    if nftables.has_chain(family, "filter", "FORWARD"):
        return True
    try:
        with open(f"/proc/net/{family}_tables_names") as file:
            return "filter" in file.read().split()
    except OSError:
        return False
