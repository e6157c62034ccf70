"""``inspect`` of a container that was created with many flags says what docker's says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker

pytestmark = [pytest.mark.root, pytest.mark.peer]

FLAGS = (
    "--network=none", "-p", "127.0.0.1:8080:80", "-p", "53/udp", "--expose", "90", "--restart", "on-failure:3",
    "--log-opt", "max-size=1m", "-m", "128m", "--memory-reservation", "64m", "--cpus", "0.5", "-c", "512",
    "--cpuset-cpus", "0", "--pids-limit", "77", "--ulimit", "nofile=100:200", "--cap-add", "NET_ADMIN",
    "--cap-drop", "MKNOD", "--security-opt", "no-new-privileges", "--device", "/dev/null:/dev/nothing:r",
    "--device-cgroup-rule", "c 10:* rw", "--sysctl", "net.ipv4.ip_forward=1", "--tmpfs", "/scratch", "-v", "named:/n:ro",
    "-v", "/anonymous", "--read-only", "--shm-size", "1m", "--group-add", "9", "--dns", "192.0.2.1", "--dns-search",
    "example.org", "--dns-option", "ndots:2", "--add-host", "here:192.0.2.2", "--init", "--oom-score-adj", "5", "--hostname", "box",
    "--domainname", "example.org", "-e", "A=1", "-w", "/tmp", "-u", "9:9", "--label", "l=2", "--stop-signal", "INT",
    "--health-cmd", "true", "--health-interval", "1m", "-i", "-t",
)  # fmt: skip
_GONE_SINCE = {"KernelMemory", "KernelMemoryTCP", "IOMaximumBandwidth", "IOMaximumIOps"}
"""Members that docker 20 has and docker 28 has not, or only elsewhere than on Linux."""
_OURS = {
    "Runtime", "CgroupnsMode", "SecurityOpt", "Tmpfs", "ConsoleSize", "Devices", "MaskedPaths", "Isolation",
}  # fmt: skip
"""Members whose values differ for a reason: another runtime and another default, words as they were given."""


def inspected(call: Callable[..., str]) -> dict[str, Any]:
    call("create", "--name", "many", *FLAGS, "busybox", "sleep", "9")
    found: dict[str, Any] = json.loads(call("inspect", "--type", "container", "many"))[0]
    call("rm", "-v", "many")
    call("volume", "rm", "-f", "named")
    return found


def test_host_config_and_config_are_dockers(tierce_with_busybox: Tierce, docker: Docker) -> None:
    theirs = inspected(docker)
    ours = inspected(lambda *words: tierce_with_busybox(*words).stdout)
    assert set(theirs) <= set(ours)
    assert set(theirs["State"]) <= set(ours["State"])
    assert set(theirs["GraphDriver"]["Data"]) == set(ours["GraphDriver"]["Data"])
    mine, their = ours["NetworkSettings"], theirs["NetworkSettings"]
    assert set(their) <= set(mine)
    assert set(their["Networks"]["none"]) <= set(mine["Networks"]["none"])
    assert [set(mount) for mount in ours["Mounts"]] == [set(mount) for mount in theirs["Mounts"]]
    for part, other in (("HostConfig", _OURS), ("Config", {"Healthcheck", "OnBuild"})):
        mine, their = ours[part], theirs[part]
        assert set(their) - set(mine) <= _GONE_SINCE, part
        different = {
            key: (value, mine[key])
            for key, value in their.items()
            if key in mine and key not in other and (value or None) != (mine[key] or None)
        }
        assert different == {}, part
    assert {key: value for key, value in ours["Config"]["Healthcheck"].items() if value} == theirs["Config"][
        "Healthcheck"
    ]
    assert set(theirs["HostConfig"]["MaskedPaths"]) <= set(ours["HostConfig"]["MaskedPaths"])


def test_a_network_has_dockers_members(tierce_with_busybox: Tierce, docker: Docker) -> None:
    their, mine = (
        json.loads(said)[0]
        for said in (docker("network", "inspect", "none"), tierce_with_busybox("network", "inspect", "none").stdout)
    )
    assert set(their) <= set(mine)
    assert {key: mine[key] for key in ("Driver", "Scope", "Internal", "Ingress", "Options")} == {
        key: their[key] for key in ("Driver", "Scope", "Internal", "Ingress", "Options")
    }
