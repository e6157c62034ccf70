"""What passes between containers, networks and the host, and what does not."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.tierce.cli.test_network import fetch, record_of, running

pytestmark = pytest.mark.root
SERVER = "echo up; trap exit TERM; nc -ll -p 80 -e echo hello & wait"


@pytest.fixture
def box(tierce: Tierce, busybox_archive: Path, tmp_path: Path) -> Tierce:
    made = replace(tierce, environment={"TIERCE_RUNTIME_DIR": str(tmp_path / "run")})
    made("load", "--input", busybox_archive)
    return made


def asked(box: Tierce, *flags: str, address: str, port: int = 80) -> str:
    """What a container gets from a server: ``hello``, or nothing."""
    script = f"for i in 1 2 3; do nc -w 1 {address} {port} < /dev/null && exit; done; true"
    return box("run", "--rm", *flags, "busybox", "sh", "-c", script).stdout.strip()


class TestIsolation:
    def test_networks_do_not_reach_each_other(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "one")
        box("network", "create", "--subnet", "10.202.0.0/24", "two")
        with running(box, "server", "--network", "one", "--ip", "10.201.0.9", script=SERVER):
            assert asked(box, "--network", "one", address="10.201.0.9") == "hello"
            assert asked(box, "--network", "two", address="10.201.0.9") == ""
            assert asked(box, address="10.201.0.9") == ""

    def test_without_icc_siblings_see_only_published_ports(self, box: Tierce) -> None:
        quiet = ("-o", "com.docker.network.bridge.enable_icc=false")
        box("network", "create", "--subnet", "10.201.0.0/24", *quiet, "quiet")
        flags = ("--network", "quiet")
        with running(box, "server", *flags, "--ip", "10.201.0.9", "-p", "0:80", script=SERVER):
            port = published(box, "server")
            assert asked(box, *flags, address="10.201.0.9") == ""
            if not bridges_are_filtered():
                assert asked(box, *flags, address="10.201.0.1", port=port) == "hello"
            assert fetch(80, "10.201.0.9") == b"hello\n", "the host reaches it"

    def test_internal_networks_lead_nowhere(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "--internal", "inner")
        box("network", "create", "--subnet", "10.202.0.0/24", "outer")
        with (
            running(box, "inside", "--network", "inner", "--ip", "10.201.0.9", script=SERVER),
            running(box, "outside", "--network", "outer", "--ip", "10.202.0.9", "-p", "0:80", script=SERVER),
        ):
            port = published(box, "outside")
            inner = ("--network", "inner")
            assert asked(box, *inner, address="10.201.0.9") == "hello"
            assert asked(box, "--network", "outer", address="10.201.0.9") == ""
            script = "ip route add default via 10.201.0.1; nc -w 1 10.202.0.9 80; nc -w 1 10.202.0.1 {port}; true"
            found = box(
                "run", "--rm", *inner, "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script.format(port=port)
            )
            assert found.stdout == ""

    def test_published_ports_of_an_internal_network_are_discarded(self, box: Tierce) -> None:
        box("network", "create", "--internal", "inner")
        done = box("run", "--rm", "--network", "inner", "-p", "80", "busybox", "true")
        assert "published ports are discarded" in done.stderr


def bridges_are_filtered() -> bool:
    """br_netfilter translates a sibling's packet while it is on the bridge still, so that it can't pass."""
    with suppress(OSError):
        return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() == "1"
    return False


def published(box: Tierce, name: str) -> int:
    record = record_of(box, name).read_text()
    return int(record.partition("\nport ")[2].split()[2])


class TestPorts:
    def test_ipv6(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "--subnet", "fd00:201::/64", "six")
        with running(box, "server", "--network", "six", "--ip6", "fd00:201::9", "-p", "0:80", script=SERVER):
            port = published(box, "server")
            assert asked(box, "--network", "six", address="fd00:201::9") == "hello"
            assert fetch(port, "fd00:201::1") == b"hello\n"
            assert fetch(port) == b"hello\n"
            assert asked(box, "--network", "six", address="fd00:201::1", port=port) == "hello"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("::1", port), timeout=5)

    def test_udp(self, box: Tierce) -> None:
        script = "echo up; nc -u -l -p 53 -e cat"
        with ExitStack() as held:
            if box("run", "--rm", "--network", "none", "busybox", "sh", "-c", "nc --help 2>&1 | grep -c -e '-u'; true").stdout == "0\n":  # fmt: skip
                pytest.skip("needs a busybox whose nc speaks UDP")
            held.enter_context(running(box, "server", "-p", "127.0.0.1:0:53/udp", script=script))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.sendto(b"ping", ("127.0.0.1", published(box, "server")))
                assert client.recv(10) == b"ping"

    def test_first_free_of_a_range(self, box: Tierce) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            first = taken.getsockname()[1]
            flags = ("-p", f"127.0.0.1:{first}-{first + 9}:80")
            with running(box, "server", *flags, script=SERVER):
                port = published(box, "server")
                assert first < port <= first + 9
                assert fetch(port) == b"hello\n"

    def test_all_that_is_exposed(self, box: Tierce) -> None:
        with running(box, "server", "-P", "--expose", "80", script=SERVER):
            port = published(box, "server")
            low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
            assert low <= port <= high
            assert fetch(port) == b"hello\n"

    def test_ports_are_free_after_kill(self, box: Tierce) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = box.start("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "sh", "-c", "echo up; sleep 1000")
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        refused = box.attempt("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
        assert (refused.code, f"127.0.0.1:{port}/tcp: is already in use" in refused.stderr) == (125, True)
        process.kill()
        process.communicate()
        box("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true")


def test_many_at_once_have_addresses_of_their_own(box: Tierce) -> None:
    """Fifty, in waves that the machine's memory allows; each network is gone with its last container."""
    script = "ip -4 -o addr show eth0 | awk '{print $4}'; sleep 3"
    with ThreadPoolExecutor(25) as pool:
        done = list(pool.map(lambda _: box("run", "--rm", "busybox", "sh", "-c", script).stdout, range(50)))
    assert all(done)
    assert len(set(done)) >= 25
    assert os.listdir(Path(box.environment["TIERCE_RUNTIME_DIR"]) / "containers") == []
