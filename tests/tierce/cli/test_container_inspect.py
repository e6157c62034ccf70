"""What scripts ask of ``inspect`` about a container: networks, ports, mounts, sizes, health."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.cli import Tierce
from tests.support.process import is_asleep
from tests.support.waiting import until

pytestmark = pytest.mark.root
SLEEP = ("busybox", "sleep", "60")


def shown(box: Tierce, form: str, name: str = "web1") -> str:
    return box("inspect", "-f", form, name).stdout.strip()


def settings(box: Tierce, name: str = "web1") -> Any:
    return json.loads(shown(box, "{{json .NetworkSettings}}", name))


def test_on_the_default_network(box: Tierce) -> None:
    box("run", "-d", "--name", "web1", "-p", "127.0.0.1:0:80", "--expose", "90", *SLEEP)
    form = '{{.NetworkSettings.IPAddress}} {{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}'
    address, port = shown(box, form).split()
    inside = box("exec", "web1", "cat", "/etc/hosts", "/sys/class/net/eth0/address").stdout
    assert f"{address}\t" in inside
    assert box("port", "web1").stdout == f"80/tcp -> 127.0.0.1:{port}\n"
    assert shown(box, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}") == address
    found = settings(box)
    assert found["Ports"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}], "90/tcp": None}
    assert box("ps", "--format", "{{.Ports}}").stdout == f"90/tcp, 127.0.0.1:{port}->80/tcp\n"
    assert found["MacAddress"] in inside
    route = box("exec", "web1", "ip", "route").stdout
    assert f"default via {found['Gateway']} " in route
    bridge = json.loads(box("network", "inspect", "bridge").stdout)[0]
    network, one = found["Networks"]["bridge"], bridge["Containers"][shown(box, "{{.Id}}")]
    assert (network["NetworkID"], network["EndpointID"]) == (bridge["Id"], one["EndpointID"])
    assert one["IPv4Address"] == f"{address}/{found['IPPrefixLen']}"
    assert network["DNSNames"] is None
    with open(shown(box, "{{.HostsPath}}"), encoding="ascii") as file:
        assert address in file.read()
    box("kill", "web1")
    ended = settings(box)
    assert (ended["IPAddress"], ended["Ports"], ended["SandboxKey"]) == ("", {}, "")
    assert ended["Networks"]["bridge"]["NetworkID"] == bridge["Id"]


def test_on_networks_of_ones_own(box: Tierce) -> None:
    box("network", "create", "--ipv6", "--subnet", "10.215.0.0/24", "--subnet", "fd00:215::/64", "front")
    box("network", "create", "back")
    wish = "name=front,alias=www,ip=10.215.0.77"
    box("run", "-d", "--name", "web1", "--network", wish, "--network", "back", *SLEEP)
    found = settings(box)
    assert (found["IPAddress"], list(found["Networks"])) == ("", ["back", "front"])
    front = found["Networks"]["front"]
    assert (front["IPAddress"], front["IPPrefixLen"], front["Gateway"]) == ("10.215.0.77", 24, "10.215.0.1")
    assert front["GlobalIPv6Address"] in box("exec", "web1", "ip", "addr").stdout
    assert (front["Aliases"], front["IPAMConfig"]) == (["www"], {"IPv4Address": "10.215.0.77"})
    assert front["DNSNames"] == ["web1", "www", shown(box, "{{.Id}}")[:12]]
    assert box("ps", "--format", "{{.Networks}}").stdout == "front,back\n"
    assert box("ps", "-q", "--filter", "network=front").stdout != ""
    assert shown(box, "{{.HostConfig.NetworkMode}}") == "front"
    box("rm", "-f", "web1")
    box("network", "rm", "front", "back")


def test_other_modes(box: Tierce) -> None:
    box("run", "-d", "--name", "web1", "--network", "none", *SLEEP)
    box("run", "-d", "--name", "web2", "--network", "container:web1", *SLEEP)
    box("run", "-d", "--name", "web3", "--network", "host", *SLEEP)
    listed = {name: identity for identity, name in (line.split() for line in box("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}").stdout.splitlines())}  # fmt: skip
    for name, network in (("web1", "none"), ("web3", "host")):
        (own,) = settings(box, name)["Networks"].items()
        assert (own[0], own[1]["NetworkID"], own[1]["IPAddress"]) == (network, listed[network], "")
    assert settings(box, "web2")["Networks"] == {}


def test_put_on_and_taken_off_while_it_does_not_run(box: Tierce) -> None:
    box("network", "create", "late")
    box("create", "--name", "web1", "--network-alias", "x", "--network", "late", *SLEEP)
    assert "already on network late" in box.attempt("network", "connect", "late", "web1").stderr
    box("network", "disconnect", "late", "web1")
    box("network", "rm", "late")
    box("start", "web1")
    assert settings(box)["Networks"] == {}
    box("network", "create", "late")
    assert "knows others by name after its next start" in box("network", "connect", "late", "web1").stderr
    assert box("exec", "web1", "ip", "-o", "route").stdout.startswith("default via ")
    box("restart", "-t", "0", "web1")
    assert box("exec", "web1", "ping", "-c", "1", "-W", "2", "web1.late").code == 0
    box("rm", "-f", "web1")
    box("create", "--name", "web1", *SLEEP)
    box("network", "connect", "--alias", "www", "late", "web1")
    box("start", "web1")
    networks = settings(box)["Networks"]
    assert (list(networks), networks["late"]["Aliases"]) == (["bridge", "late"], ["www"])
    box("network", "disconnect", "bridge", "web1")
    box("restart", "-t", "0", "web1")
    assert list(settings(box)["Networks"]) == ["late"]
    assert box.attempt("network", "disconnect", "bridge", "web1").code == 1
    box("rm", "-f", "web1")
    box("network", "rm", "late")


def test_mounts_sizes_and_image(box: Tierce) -> None:
    volumes = ("-v", "data:/d:ro", "-v", "/var:/v", "--tmpfs", "/t")
    box(
        "run",
        "--name",
        "web1",
        "--network",
        "none",
        *volumes,
        "--annotation",
        "a.b=c",
        "busybox",
        "sh",
        "-c",
        "echo 12345 > /x",
    )
    volume = str(box.root / "volumes" / "data" / "_data")
    found = {mount["Destination"]: mount for mount in json.loads(shown(box, "{{json .Mounts}}"))}
    assert found == {
        "/d": {"Type": "volume", "Name": "data", "Source": volume, "Destination": "/d", "Driver": "local", "Mode": "ro",
               "RW": False, "Propagation": ""},
        "/v": {"Type": "bind", "Source": "/var", "Destination": "/v", "Mode": "", "RW": True, "Propagation": "rprivate"},
    }  # fmt: skip
    assert shown(box, "{{.Image}}") == box("inspect", "-f", "{{.Id}}", "busybox").stdout.strip()
    document = json.loads(box("inspect", "-s", "web1").stdout)[0]
    assert (document["SizeRw"], document["SizeRootFs"] > 10**6) == (6, True)
    assert "SizeRw" not in json.loads(box("inspect", "web1").stdout)[0]
    assert document["HostConfig"]["Annotations"] == {"a.b": "c"}
    assert shown(box, "{{json .State}}").startswith('{"Status":"exited","Running":false,')
    assert box.attempt("inspect", "-f", "{{.State.Health.Status}}", "web1").code == 1


def test_conditions_and_existence(box: Tierce) -> None:
    assert box.attempt("container", "exists", "web1").code == 1
    box("create", "--name", "web1", "--network", "none", "busybox", "sh", "-c", "exit 4")
    box("container", "exists", "web1")
    assert box("wait", "--condition", "created", "web1").stdout == "-1\n"
    with box.start("wait", "--condition", "next-exit", "web1") as waiting:
        until(lambda: is_asleep(waiting.pid))  # it has looked, and looks again
        box("start", "web1")
        assert waiting.communicate(timeout=30)[0] == "4\n"
    with box.start("wait", "--condition", "removed", "web1") as waiting:
        until(lambda: is_asleep(waiting.pid))
        box("rm", "web1")
        assert waiting.communicate(timeout=30)[0] == "4\n"
    assert "invalid condition 'later'" in box.attempt("wait", "--condition", "later", "web1").stderr
    for kind, there in (("image", "busybox"), ("network", "bridge")):
        box(kind, "exists", there)
        assert box.attempt(kind, "exists", "absent").code == 1
    assert box.attempt("volume", "exists", "absent").code == 1


def test_streams_that_are_not_attached(box: Tierce) -> None:
    script = "echo out; echo err >&2"
    for flags in (("--rm",), ("--health-cmd", "true")):
        done = box("run", *flags, "-a", "stderr", "--network", "none", "busybox", "sh", "-c", script)
        assert (done.stdout, done.stderr) == ("", "err\n")
    refused = box.attempt("run", "-d", "-a", "stdout", "--network", "none", "busybox", "true")
    assert (refused.code, "conflicting options: --attach and --detach" in refused.stderr) == (125, True)
