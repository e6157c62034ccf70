"""Ports, addresses, files and rules as values; the bridge for real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.errors import Conflict, InvalidInput, PortInUse
from runner.containers.sweep import is_due
from runner.network import addresses, files, link
from runner.network.addresses import Subnet, choose_address, choose_subnet, dotted, parse_address, parse_subnet
from runner.network.bridge import bridge_name, default_network, drop_lingering
from runner.network.modes import NetworkMode, parse_mode
from runner.network.ports import Port, Reservation, parse_publish
from runner.runtime import state
from runner.runtime.spawn import Stdio
from tests.support.boxes import Box


class TestPublish:
    @pytest.mark.parametrize(
        ("text", "ports"),
        [
            ("80", (Port(80),)),
            ("8080:80", (Port(80, 8080),)),
            ("127.0.0.1:8080:80", (Port(80, 8080, "127.0.0.1"),)),
            ("127.0.0.1::80", (Port(80, 0, "127.0.0.1"),)),
            ("127.0.0.1:0:80", (Port(80, 0, "127.0.0.1"),)),
            ("53:53/udp", (Port(53, 53, protocol="udp"),)),
            ("8000-8001:80-81", (Port(80, 8000), Port(81, 8001))),
            ("8000-8009:80", (Port(80, 8000, host_last=8009),)),
            ("[fd00::1]:8080:80", (Port(80, 8080, "fd00::1"),)),
            ("[::]::53/udp", (Port(53, 0, "::", "udp"),)),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_docker_syntax(self, text: str, ports: tuple[Port, ...]) -> None:
        assert parse_publish(text) == ports

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "x",
            "0",
            "65536",
            "80-79",
            "1-2:3-5",
            "80/sctp",
            "[::1]:80:80",
            "[::1:80:80",
            "[x]:80:80",
            "1.2.3:1:2",
            "a:1:2",
            "1:2:3:4",
            "٣",
        ],
    )
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            parse_publish(text)

    def test_a_taken_port_is_refused_and_nothing_is_kept(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            with pytest.raises(PortInUse, match=f"127.0.0.1:{taken}/tcp: is already in use"):
                Reservation([Port(80, 0, "127.0.0.1"), Port(81, taken, "127.0.0.1")])

    def test_the_kernel_chooses_a_port(self) -> None:
        held = Reservation([Port(80), Port(53, protocol="udp")])
        assert all(port.host_port for port in held.ports)
        held.close()
        held.close()


class TestAddresses:
    @given(st.integers(0, 2**32 - 1))
    def test_there_and_back(self, address: int) -> None:
        assert parse_address(dotted(address)) == address

    @pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.256", "1.2.3.x", "1.2.3.4.5", "1.2.3.٣"])
    def test_nonsense(self, text: str) -> None:
        assert parse_address(text) is None

    def test_subnet_avoids_routes_and_others_defaults(self) -> None:
        first = choose_subnet([])
        second = choose_subnet([first])
        assert not first.overlaps(second)
        taken = [parse_subnet("172.16.0.0/12"), parse_subnet("192.168.0.0/17")]
        assert str(choose_subnet([subnet for subnet in taken if subnet])) == "192.168.240.0/20"

    def test_no_subnet_left(self) -> None:
        with pytest.raises(Conflict):
            choose_subnet([Subnet(0, 1), Subnet(1 << 31, 1)])

    def test_lowest_free_address(self) -> None:
        subnet = Subnet(172 << 24 | 28 << 16, 29)
        taken = {subnet.base + 2, subnet.base + 4}
        assert choose_address(subnet, taken) == subnet.base + 3
        with pytest.raises(Conflict):
            choose_address(subnet, set(range(subnet.base, subnet.broadcast)))


class TestFiles:
    def test_loopback_servers_are_left_out(self) -> None:
        given = "search corp\nnameserver 127.0.0.1\nnameserver 10.0.0.53\noptions edns0\n"
        assert files.resolv_conf(given) == files.ResolvConf("search corp\nnameserver 10.0.0.53\noptions edns0\n")

    def test_none_left_falls_back_and_says_so(self) -> None:
        found = files.resolv_conf("nameserver 127.0.0.11\nnameserver ::1\n")
        assert files.name_servers(found.text) == ["8.8.8.8", "8.8.4.4"]
        assert "127.0.0.11" in found.warning

    def test_the_stub_of_resolved_is_recognised(self) -> None:
        assert files.uses_resolved_stub("nameserver 127.0.0.53\noptions x\n")
        assert not files.uses_resolved_stub("nameserver 127.0.0.53\nnameserver 1.1.1.1\n")

    def test_hosts(self) -> None:
        assert files.hosts("box", "172.28.0.2").endswith("172.28.0.2\tbox\n")


def test_modes() -> None:
    assert [parse_mode(text) for text in ("", "default", "none")] == [
        NetworkMode.BRIDGE, NetworkMode.BRIDGE, NetworkMode.NONE,
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="'mynet' is not supported"):
        parse_mode("mynet")


def _tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def _lingering(root: Path) -> list[int]:
    """Processes that wait before they take the default network down."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if any(b"network.lingering" in word for word in words) and any(bytes(root) in word for word in words):
                found.append(int(path.parent.name))
    return found


def _waiting(root: Path) -> int:
    """The one process of these. For an instant after its start it has no words."""
    assert eventually(lambda: len(_lingering(root)) == 1)
    [pid] = _lingering(root)
    return pid


def _kill_lingering(root: Path) -> None:
    pid = _waiting(root)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # its lock is free then, and not when its words are gone


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _fetch(address: str, port: int) -> bytes:
    """What a server that speaks first says; "" while it is not there yet."""
    for _ in range(100):
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                data = connection.recv(100)
                if data:
                    return data
        except ConnectionRefusedError:
            time.sleep(0.02)
    return b""


@pytest.mark.root
class TestBridge:
    @pytest.fixture
    def server(self, box: Box) -> Iterator[tuple[Box, int, str]]:
        """A container that says hello on a published port of the host's choosing."""
        spec = box.spec("nc", "-ll", "-p", "8000", "-e", "echo", "hello")
        with box.started(spec, network=NetworkMode.BRIDGE, ports=(Port(8000),)) as container:
            yield box, container.ports[0].host_port, container.address

    def test_reached_from_loopback(self, server: tuple[Box, int, str]) -> None:
        assert _fetch("127.0.0.1", server[1]) == b"hello\n"

    def test_reached_at_its_own_address(self, server: tuple[Box, int, str]) -> None:
        assert _fetch(server[2], 8000) == b"hello\n"

    def test_reached_at_an_address_of_the_host(self, server: tuple[Box, int, str]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.123", 9))
            except OSError:
                pytest.skip("needs a route beside loopback")
            address = probe.getsockname()[0]
        assert _fetch(address, server[1]) == b"hello\n"

    def test_reached_by_siblings(self, server: tuple[Box, int, str]) -> None:
        box, port, address = server
        gateway = ".".join((*address.split(".")[:3], "1"))
        script = f"nc -w 5 {gateway} {port}; nc -w 5 {address} 8000"
        assert _fetch("127.0.0.1", port)
        assert box.sh(script, network=NetworkMode.BRIDGE).out == "hello\nhello\n"

    def test_loopback_services_of_the_host_stay_closed(self, box: Box) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            script = f"nc -w 1 $(ip route | sed -n 's/default via //;s/ dev.*//;1p') {port} < /dev/null || echo closed"
            assert "closed" in box.sh(script, network=NetworkMode.BRIDGE).out

    def test_a_clash_is_a_clear_error(self, server: tuple[Box, int, str]) -> None:
        box, port, _ = server
        with pytest.raises(PortInUse, match=str(port)):  # noqa: SIM117  # the second is what raises
            with box.started(box.spec("true"), network=NetworkMode.BRIDGE, ports=(Port(80, port),)):
                pass

    def test_interface_and_files_inside(self, box: Box) -> None:
        script = "ip -4 -o addr show eth0 | awk '{print $4}'; ip route | head -1; tail -1 /etc/hosts; cat /etc/hostname"
        lines = box.sh(script, network=NetworkMode.BRIDGE).out.splitlines()
        address = lines[0].split("/")[0]
        assert lines[1].startswith("default via ")
        assert lines[2:] == [f"{address}\tbox", "box"]

    def test_the_last_one_takes_everything_away(self, box: Box) -> None:
        with box.started(box.spec("sleep", "1000"), network=NetworkMode.BRIDGE):
            with box.started(box.spec("sleep", "1000"), network=NetworkMode.BRIDGE):
                pass
            assert link.link_index(bridge_name(box.root)) is not None
            assert f"table inet {default_network(box.root).table}\n" in _tables()
        assert link.link_index(bridge_name(box.root)) is not None  # a next one may follow at once
        assert eventually(lambda: link.link_index(bridge_name(box.root)) is None)
        with state.locked(box.root):  # it is held until all has gone
            assert f"table inet {default_network(box.root).table}\n" not in _tables()
        assert [path.name for path in box.root.iterdir() if path.name != "containers"] == ["lock"]
        assert list((box.root / "containers").iterdir()) == []

    def test_a_next_one_finds_the_network_up(self, box: Box) -> None:
        indexes = []
        for _ in range(2):
            box.sh("true", network=NetworkMode.BRIDGE)
            indexes.append(link.link_index(bridge_name(box.root)))
        assert indexes[0] is not None
        assert indexes[1] == indexes[0]
        drop_lingering(box.root)
        assert link.link_index(bridge_name(box.root)) is None

    def test_a_table_that_was_left_is_replaced(self, box: Box) -> None:
        table = default_network(box.root).table
        stale = f"table inet {table} {{\nchain stale {{\n}}\n}}\n"
        subprocess.run(["nft", "-f", "-"], input=stale, text=True, check=True)
        box.sh("true", network=NetworkMode.BRIDGE)
        listed = subprocess.run(["nft", "list", "table", "inet", table], capture_output=True, text=True, check=True)
        assert "chain leaving" in listed.stdout
        assert "stale" not in listed.stdout

    def test_what_waits_for_a_next_one_can_be_killed(self, box: Box) -> None:
        box.sh("true", network=NetworkMode.BRIDGE)
        _kill_lingering(box.root)
        assert link.link_index(bridge_name(box.root)) is not None
        box.sh("true", network=NetworkMode.BRIDGE)
        os.kill(_waiting(box.root), signal.SIGTERM)  # it need not wait
        assert eventually(lambda: link.link_index(bridge_name(box.root)) is None)

    def test_a_command_takes_down_what_nobody_waits_for(self, box: Box) -> None:
        box.sh("true", network=NetworkMode.BRIDGE)
        assert not is_due(box.root)
        _kill_lingering(box.root)
        assert is_due(box.root)
        assert box.sh("true").code == 0
        assert link.link_index(bridge_name(box.root)) is None
        assert not is_due(box.root)

    def test_addresses_are_unique(self, box: Box) -> None:
        with (
            box.started(box.spec("sleep", "1000"), network=NetworkMode.BRIDGE) as one,
            box.started(box.spec("sleep", "1000"), network=NetworkMode.BRIDGE) as two,
        ):
            assert len({one.address, two.address}) == 2

    def test_host_mode_shares_the_namespace(self, box: Box) -> None:
        from dataclasses import replace

        spec = box.spec("readlink", "/proc/self/ns/net")
        shared = tuple(entry for entry in spec.namespaces if entry.type != "network")
        done = box.run(replace(spec, namespaces=shared, sysctl={}), network=NetworkMode.HOST)
        assert done.out.strip() == os.readlink("/proc/self/ns/net")

    def test_host_files_are_the_hosts(self, box: Box) -> None:
        from dataclasses import replace

        spec = box.spec("cat", "/etc/resolv.conf")
        shared = tuple(entry for entry in spec.namespaces if entry.type != "network")
        done = box.run(replace(spec, namespaces=shared, sysctl={}), network=NetworkMode.HOST)
        assert done.out == Path("/etc/resolv.conf").read_text()

    def test_ports_are_discarded_without_a_bridge(self, box: Box) -> None:
        with box.started(box.spec("true"), stdio=Stdio(), ports=(Port(80),)) as container:
            assert container.warnings == ("published ports are discarded when using none network mode",)


_BESIDE_DOCKER = """
import subprocess, sys
from pathlib import Path
from tests.support.boxes import Box
from runner.network.bridge import drop_lingering
from runner.network.modes import NetworkMode
from runner.network.ports import Port
from runner.runtime.privileges import probe
subprocess.run(["iptables", "-P", "FORWARD", "DROP"], check=True)
box = Box(Path(sys.argv[1]), Path(sys.argv[2]), probe())
server = box.spec("nc", "-ll", "-p", "8000", "-e", "echo", "hello")
with box.started(server, network=NetworkMode.BRIDGE, ports=(Port(8000),)) as container:
    gateway = ".".join((*container.address.split(".")[:3], "1"))
    script = f"for i in 1 2 3 4 5; do nc -w 5 {gateway} {container.ports[0].host_port} && exit; sleep 0.1; done"
    print(box.sh(script, network=NetworkMode.BRIDGE).out, end="")
drop_lingering(box.root)
print(subprocess.run(["iptables", "-S", "FORWARD"], capture_output=True, text=True, check=True).stdout, end="")
"""


@pytest.mark.root
def test_beside_dockers_forward_policy(box: Box) -> None:
    """In a network namespace of its own: through a FORWARD chain that drops, and then out of it."""
    if shutil.which("iptables") is None:
        pytest.skip("needs iptables")
    command = ["unshare", "--net", sys.executable, "-c", _BESIDE_DOCKER, str(box.rootfs), str(box.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr) == ("hello\n-P FORWARD DROP\n", "")


def test_mac_follows_from_the_address() -> None:
    assert addresses.mac(172 << 24 | 28 << 16 | 2).hex(":") == "02:42:ac:1c:00:02"
