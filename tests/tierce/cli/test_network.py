"""``tierce network`` and ``run --network``, as a user calls them."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cli import Tierce


@pytest.fixture
def net(tierce: Tierce, tmp_path: Path) -> Tierce:
    """Tierce with a runtime directory of its own, so that its networks are its own."""
    return replace(tierce, environment={"TIERCE_RUNTIME_DIR": str(tmp_path / "run")})


@pytest.fixture
def box(net: Tierce, busybox_archive: Path) -> Tierce:
    net("load", "--input", busybox_archive)
    return net


@contextmanager
def running(
    tierce: Tierce, name: str, *flags: str, script: str = "trap exit TERM; echo up; while :; do sleep 0.1; done"
) -> Iterator[None]:
    """A container in the foreground of another process; ready when it has said so."""
    process = tierce.start("run", "--rm", "--name", name, *flags, "busybox", "sh", "-c", script)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n", process.stderr and process.stderr.read()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


def record_of(box: Tierce, name: str) -> Path:
    """What the runtime directory says of a container's place on networks."""
    identity = box("ps", "--quiet", "--no-trunc", "--filter", f"name={name}").stdout.strip()
    return Path(box.environment["TIERCE_RUNTIME_DIR"]) / "containers" / identity / "network"


class TestDefinitions:
    def test_created_listed_inspected_removed(self, net: Tierce) -> None:
        identity = net("network", "create", "--label", "a=b", "web").stdout.strip()
        assert len(identity) == 64
        listed = net("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout.splitlines()
        assert listed == ["bridge bridge local", "host host local", "none null local", "web bridge local"]
        assert net("network", "ls", "-q", "--filter", "label=a=b").stdout == f"{identity[:12]}\n"
        [document] = json.loads(net("network", "inspect", "web").stdout)
        assert (document["Id"], document["Driver"], document["Labels"]) == (identity, "bridge", {"a": "b"})
        assert document["Containers"] == {}
        assert net("network", "rm", identity[:5]).stdout == f"{identity[:5]}\n"
        assert net.attempt("network", "inspect", "web").stderr == (
            "tierce: network web not found (tierce network create web)\n"
        )

    def test_subnet_gateway_and_range(self, net: Tierce) -> None:
        net("network", "create", "--subnet", "10.201.0.0/24", "--gateway", "10.201.0.9", "--ip-range", "10.201.0.128/25", "web")  # fmt: skip
        [document] = json.loads(net("network", "inspect", "web").stdout)
        config = {"Subnet": "10.201.0.0/24", "Gateway": "10.201.0.9", "IPRange": "10.201.0.128/25"}
        assert document["IPAM"]["Config"] == [config]

    def test_ipv6_gets_a_subnet_of_its_own(self, net: Tierce) -> None:
        net("network", "create", "--ipv6", "six")
        form = "{{.EnableIPv6}}{{range .IPAM.Config}} {{.Subnet}}{{end}}"
        enabled, four, six = net("network", "inspect", "--format", form, "six").stdout.split()
        assert enabled == "true"
        assert four.endswith(("/16", "/20"))
        assert six.startswith("fd")

    def test_two_networks_never_overlap(self, net: Tierce) -> None:
        subnets = set()
        for name in ("one", "two", "three"):
            net("network", "create", name)
            subnets.add(net("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", name).stdout)
        assert len(subnets) == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("bridge",), "network 'bridge' is predefined: choose another name"),
            (("x/y",), "invalid network name 'x/y': use letters"),
            (("--driver", "overlay", "web"), "network driver 'overlay' is not supported, use bridge"),
            (("--subnet", "10.0.0.0", "web"), "invalid subnet '10.0.0.0'"),
            (("--subnet", "10.201.0.0/24", "--gateway", "10.9.0.1", "web"), "no --subnet contains it"),
            (("--subnet", "10.201.0.0/24", "--subnet", "10.202.0.0/24", "web"), "at most one subnet of each"),
            (("--subnet", "10.200.0.0/23", "web"), "overlaps 10.200.0.0/24 of network taken"),
            (("--subnet", "127.0.0.0/8", "web"), "this host already uses 127.0.0.0/8"),
            (("-o", "x=y", "web"), "network option 'x' is not supported"),
            (("-o", "mtu=9", "web"), "the MTU is a number from 68 to 65535"),
            (("-o", "com.docker.network.bridge.name=a-name-much-too-long", "web"), "not a name for an interface"),
            (("taken",), "network with name taken already exists"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_a_bad_wish_is_a_clear_error(self, net: Tierce, arguments: tuple[str, ...], message: str) -> None:
        net("network", "create", "--subnet", "10.200.0.0/24", "taken")
        refused = net.attempt("network", "create", *arguments)
        assert refused.code == 1
        assert message in refused.stderr
        assert len(refused.stderr.splitlines()) == 1

    def test_a_predefined_network_cannot_be_removed(self, net: Tierce) -> None:
        assert "cannot be removed" in net.attempt("network", "rm", "bridge").stderr

    def test_rm_of_an_absent_network(self, net: Tierce) -> None:
        assert net.attempt("network", "rm", "absent").code == 1
        assert net("network", "rm", "--force", "absent").code == 0

    def test_prune(self, net: Tierce) -> None:
        net("network", "create", "--label", "keep", "kept")
        net("network", "create", "gone")
        assert net("network", "prune", "-f", "--filter", "label!=keep").stdout == "Deleted Networks:\ngone\n\n"
        assert net("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").stdout == "kept\n"


@pytest.mark.root
class TestContainers:
    def test_in_use_is_not_removed(self, box: Tierce) -> None:
        box("network", "create", "web")
        with running(box, "one", "--network", "web"):
            refused = box.attempt("network", "rm", "web")
            assert (refused.code, "has active endpoints: one" in refused.stderr) == (1, True)
            box("network", "prune", "-f")
            [document] = json.loads(box("network", "inspect", "web").stdout)
            assert [entry["Name"] for entry in document["Containers"].values()] == ["one"]
        box("network", "rm", "web")

    def test_addresses_as_wanted(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "--subnet", "fd00:201::/64", "web")
        flags = (
            "--network",
            "web",
            "--ip",
            "10.201.0.77",
            "--ip6",
            "fd00:201::77",
            "--mac-address",
            "02:00:00:00:00:09",
        )
        script = "ip addr show eth0; ip route; ip -6 route; cat /etc/hosts"
        out = box("run", "--rm", "-h", "me", *flags, "busybox", "sh", "-c", script).stdout
        for wanted in (
            "inet 10.201.0.77/24", "inet6 fd00:201::77/64", "link/ether 02:00:00:00:00:09",
            "default via 10.201.0.1", "default via fd00:201::1", "10.201.0.77\tme", "fd00:201::77\tme",
        ):  # fmt: skip
            assert wanted in out

    def test_address_in_use(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "web")
        for address, message in (
            ("10.201.0.1", "is already in use"),
            ("10.9.0.1", "has no subnet that contains 10.9.0.1"),
            ("x", "invalid address 'x'"),
        ):
            refused = box.attempt("run", "--network", "web", "--ip", address, "busybox", "true")
            assert (refused.code, message in refused.stderr) == (125, True)

    def test_several_networks(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "--internal", "one")
        box("network", "create", "--subnet", "10.202.0.0/24", "two")
        script = "ip -4 -o addr | awk '{print $2, $4}'; ip route | grep default"
        out = box("run", "--rm", "--network", "one", "--network", "two", "busybox", "sh", "-c", script).stdout
        assert out.splitlines() == [
            "lo 127.0.0.1/8", "eth0 10.201.0.2/24", "eth1 10.202.0.2/24", "default via 10.202.0.1 dev eth1 ",
        ]  # fmt: skip

    def test_the_namespace_of_another(self, box: Tierce) -> None:
        with running(box, "one", "-h", "theirs"):
            script = "ip -o -4 addr show eth0 | awk '{print $4}'; cat /etc/hostname"
            out = box("run", "--rm", "--network", "container:one", "busybox", "sh", "-c", script).stdout
            assert out.splitlines()[1:] == ["theirs"]
            assert "/" in out
        refused = box.attempt("run", "--rm", "--network", "container:one", "busybox", "true")
        assert (refused.code, "no running container one" in refused.stderr) == (125, True)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--network", "absent"), "network absent not found"),
            (("--network", "none", "--network", "bridge"), "cannot be combined"),
            (("--network", "host", "--ip", "1.2.3.4"), "conflicting options: --ip"),
            (("--ip", "172.28.0.9"), "only on networks that you created"),
            (("--network-alias", "x"), "only for networks that you created"),
            (("--network", "name=web,speed=9"), "'speed' is not known"),
            (("--dns", "x"), "invalid --dns 'x'"),
            (("--mac-address", "01:00:00:00:00:00"), "invalid MAC address"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_a_bad_wish_is_a_clear_error(self, box: Tierce, flags: tuple[str, ...], message: str) -> None:
        refused = box.attempt("run", "--rm", *flags, "busybox", "true")
        assert refused.code == 125
        assert message in refused.stderr

    def test_resolv_conf_and_hosts(self, box: Tierce) -> None:
        flags = (
            "--dns",
            "10.9.8.7",
            "--dns-search",
            "corp.example",
            "--dns-option",
            "timeout:1",
            "--add-host",
            "db:10.1.2.3",
        )
        out = box("run", "--rm", *flags, "busybox", "cat", "/etc/resolv.conf", "/etc/hosts").stdout
        assert "nameserver 10.9.8.7\nsearch corp.example\n" in out
        assert "timeout:1" in out
        assert "10.1.2.3\tdb" in out

    def test_gateway_of_the_host(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "web")
        flags = ("--network", "web", "--add-host", "here:host-gateway")
        assert "10.201.0.1\there" in box("run", "--rm", *flags, "busybox", "cat", "/etc/hosts").stdout


_LOOK_UP = "nslookup -type=a {0} 127.0.0.11 | grep Address | tail -1"


@pytest.mark.root
class TestNames:
    def test_name_alias_and_full_name(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "web")
        with running(box, "one", "--network", "web", "--network-alias", "db", "--ip", "10.201.0.77"):
            script = "; ".join(_LOOK_UP.format(name) for name in ("one", "db", "ONE.web"))
            out = box("run", "--rm", "--network", "web", "busybox", "sh", "-c", script).stdout
            assert out.splitlines() == ["Address: 10.201.0.77"] * 3
            script = "cat /etc/resolv.conf; ping -c 1 -W 2 db | head -1; nslookup 10.201.0.77 | grep name"
            out = box("run", "--rm", "--network", "web", "busybox", "sh", "-c", script).stdout
            assert out.startswith("nameserver 127.0.0.11\n")
            assert "ndots:0" in out
            assert "PING db (10.201.0.77)" in out
            assert "77.0.201.10.in-addr.arpa\tname = one.web\n" in out

    def test_newcomers_are_seen_and_leavers_forgotten(self, box: Tierce, tmp_path: Path) -> None:
        box("network", "create", "web")
        shared = tmp_path / "shared"
        shared.mkdir()
        mount = ("--network", "web", "-v", f"{shared}:/shared")
        look = "echo up; until nslookup -type=a late | grep -q Name:; do sleep 0.1; done; touch /shared/seen; "
        gone = "while nslookup -type=a late | grep -q Name:; do sleep 0.1; done; touch /shared/gone; sleep 1000"
        until = "echo up; until test -e /shared/{0}; do sleep 0.1; done; exit"
        with running(box, "early", *mount, script=f"trap exit TERM; {look}{gone} & wait"):
            box("run", "--rm", "--name", "late", *mount, "busybox", "sh", "-c", until.format("seen"))
            box("run", "--rm", *mount, "busybox", "sh", "-c", until.format("gone"))

    def test_the_default_network_has_no_names(self, box: Tierce) -> None:
        with running(box, "one"):
            script = "cat /etc/resolv.conf; timeout 2 nslookup one >&2 && echo found"
            out = box.attempt("run", "--rm", "busybox", "sh", "-c", script).stdout
            assert "127.0.0.11" not in out
            assert "found" not in out

    def test_port_53_stays_free(self, box: Tierce) -> None:
        box("network", "create", "web")
        script = "nc -ll -p 53 -e echo mine & for i in 1 2 3 4 5; do nc 127.0.0.1 53 && break; sleep 0.1; done"
        assert box("run", "--rm", "--network", "web", "busybox", "sh", "-c", script).stdout == "mine\n"


@pytest.mark.root
class TestLive:
    def test_connected_and_disconnected_as_it_runs(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.201.0.0/24", "one")
        box("network", "create", "--subnet", "10.202.0.0/24", "two")
        probe = "nslookup -type=a {0} | grep -c Name:; ping -c 1 -W 2 {0} >/dev/null && echo reached"
        with running(box, "server", "--network", "one", "-h", "me"):
            box("network", "connect", "--alias", "db", "--ip", "10.202.0.77", "two", "server")
            out = box("run", "--rm", "--network", "two", "busybox", "sh", "-c", probe.format("db")).stdout
            assert out == "1\nreached\n"
            inside = ("run", "--rm", "--network", "container:server", "busybox", "sh", "-c")
            assert "10.202.0.77\tme" in box(*inside, "cat /etc/hosts").stdout
            assert "already on network two" in box.attempt("network", "connect", "two", "server").stderr
            box("network", "disconnect", "one", "server")
            lines = box(*inside, "ip -4 -o addr | awk '{print $2, $4}'; ip route | grep default; cat /etc/hosts").stdout
            assert lines.startswith("lo 127.0.0.1/8\neth1 10.202.0.77/24\ndefault via 10.202.0.1 dev eth1")
            assert "10.201" not in lines
            box("network", "rm", "one")
            box("network", "disconnect", "two", "server")
            assert "is not on network two" in box.attempt("network", "disconnect", "two", "server").stderr
            assert box("inspect", "--format", "{{json .NetworkSettings.Networks}}", "server").stdout == "{}\n"
            box("network", "connect", "--alias", "db", "two", "server")  # the last one was taken off
            assert box("run", "--rm", "--network", "two", "busybox", "sh", "-c", probe.format("db")).stdout == out

    def test_from_the_default_network_to_one_with_names(self, box: Tierce) -> None:
        box("network", "create", "web")
        with running(box, "server"), running(box, "db", "--network", "web"):
            box("network", "connect", "web", "server")
            inside = ("run", "--rm", "--network", "container:server", "busybox")
            assert "nslookup: can't" not in box(*inside, "ping", "-c", "1", "-W", "2", "db").stdout
            assert "127.0.0.11" in box(*inside, "cat", "/etc/resolv.conf").stdout

    def test_published_ports_move_on(self, box: Tierce) -> None:
        box("network", "create", "one")
        box("network", "create", "two")
        script = "echo up; trap exit TERM; nc -ll -p 80 -e echo hello & wait"
        with running(box, "server", "--network", "one", "--network", "two", "-p", "127.0.0.1:0:80", script=script):
            record = record_of(box, "server").read_text()
            port = int(record.partition("port tcp 127.0.0.1 ")[2].split()[0])
            assert fetch(port) == b"hello\n"
            box("network", "disconnect", "one", "server")
            assert fetch(port) == b"hello\n"
            box("network", "disconnect", "two", "server")
            assert box("port", "server").stdout == ""
            with socket.socket() as other:
                assert other.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
            with socket.create_server(("127.0.0.1", port)):  # nobody has it now
                assert "already in use" in box.attempt("network", "connect", "one", "server").stderr
            box("network", "connect", "one", "server")
            assert fetch(port) == b"hello\n"
            assert box("port", "server").stdout == f"80/tcp -> 127.0.0.1:{port}\n"

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--network", "none"), "has no network of bridges"),
            (("--network", "host"), "no network of its own"),
        ],
        ids=["none", "host"],
    )
    def test_what_has_no_bridge(self, box: Tierce, flags: tuple[str, ...], message: str) -> None:
        box("network", "create", "web")
        with running(box, "server", *flags):
            refused = box.attempt("network", "connect", "web", "server")
            assert refused.code == 1
            assert message in refused.stderr

    def test_nothing_changes_when_it_fails(self, box: Tierce) -> None:
        box("network", "create", "--subnet", "10.202.0.0/24", "two")
        with running(box, "server"):
            record = record_of(box, "server")
            before = record.read_text()
            assert box.attempt("network", "connect", "--ip", "10.9.9.9", "two", "server").code == 1
            assert record.read_text() == before
        assert "no such container: absent" in box.attempt("network", "connect", "two", "absent").stderr


def fetch(port: int, address: str = "127.0.0.1") -> bytes:
    """What a server that speaks first says."""
    for _ in range(50):
        with suppress(OSError), socket.create_connection((address, port), timeout=5) as client:
            if data := client.recv(100):
                return data
        time.sleep(0.05)
    return b""
