"""``tierce run``'s options and an image's configuration, as docker combines them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from image.config import ContainerConfig
from image.errors import InvalidInput
from runner.containers.limits import Limits
from runner.containers.options import RunOptions, Surroundings, command, container_spec
from runner.containers.security import Security
from runner.network.wishes import NetworkOptions
from runner.runtime import capabilities
from runner.runtime.spec import DockerSeccomp, NamedUser

SURROUNDINGS = Surroundings("c0ffee" * 6, {"HERE": "value"}, "/work/dir", "thehost")
CONFIG = ContainerConfig(
    entrypoint=("/entry",), cmd=("serve",), env=("PATH=/image", "LANG=C", "GONE=1"), user="alice", working_dir="/srv/"
)


@dataclass(frozen=True)
class CommandCase:
    name: str
    options: RunOptions
    config: ContainerConfig
    expected: tuple[str, ...]


@pytest.mark.parametrize(
    "case",
    [
        CommandCase("image's own", RunOptions(), CONFIG, ("/entry", "serve")),
        CommandCase("words replace the command", RunOptions(args=("x",)), CONFIG, ("/entry", "x")),
        CommandCase("entrypoint drops the command", RunOptions(entrypoint="sh"), CONFIG, ("sh",)),
        CommandCase("emptied entrypoint", RunOptions(entrypoint="", args=("x",)), CONFIG, ("x",)),
        CommandCase("command alone", RunOptions(), ContainerConfig(cmd=("sh",)), ("sh",)),
    ],
    ids=lambda case: case.name,
)
def test_command(case: CommandCase) -> None:
    assert command(case.options, case.config) == case.expected


def test_no_command() -> None:
    with pytest.raises(InvalidInput, match="no command specified"):
        command(RunOptions(entrypoint=""), CONFIG)


def test_environment_in_order_of_weight() -> None:
    options = RunOptions(env=("LANG=de", "HERE", "GONE", "EMPTY="), tty=True)
    env = container_spec(options, CONFIG, SURROUNDINGS).process.env
    assert env == (
        "PATH=/image", "HOSTNAME=c0ffeec0ffee", "TERM=xterm", "LANG=de", "HERE=value", "EMPTY=",
    )  # fmt: skip


def test_image_gives_user_and_directory_and_the_user_overrides() -> None:
    own = container_spec(RunOptions(), CONFIG, SURROUNDINGS).process
    assert (own.user, own.cwd) == (NamedUser("alice"), "/srv")
    other = container_spec(RunOptions(user="0:5", workdir="/tmp", group_add=("audio",)), CONFIG, SURROUNDINGS).process
    assert (other.user, other.cwd) == (NamedUser("0:5", ("audio",)), "/tmp")


def test_relative_working_directory_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs to be an absolute path"):
        container_spec(RunOptions(workdir="here"), CONFIG, SURROUNDINGS)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(capabilities.DEFAULT)),
        (("net_admin",), ("CAP_MKNOD",), {*capabilities.DEFAULT, "CAP_NET_ADMIN"} - {"CAP_MKNOD"}),
        (("chown",), ("all",), {"CAP_CHOWN"}),
        (("ALL",), ("sys_admin",), set(capabilities.ALL) - {"CAP_SYS_ADMIN"}),
        ((), ("ALL",), set()),
    ],
    ids=["default", "one each", "drop all but", "all but", "none"],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    spec = container_spec(RunOptions(security=Security(cap_add=add, cap_drop=drop)), CONFIG, SURROUNDINGS)
    assert set(spec.process.capabilities.bounding) == expected


def test_unknown_capability() -> None:
    with pytest.raises(InvalidInput, match="'fly'"):
        container_spec(RunOptions(security=Security(cap_add=("fly",))), CONFIG, SURROUNDINGS)


def test_privileged_lifts_what_docker_lifts() -> None:
    spec = container_spec(RunOptions(security=Security(privileged=True)), CONFIG, SURROUNDINGS)
    assert (spec.masked_paths, spec.readonly_paths, spec.seccomp, spec.resources.devices) == ((), (), None, ())
    assert spec.process.capabilities.effective == capabilities.ALL
    assert not any("ro" in mount.options for mount in spec.mounts)
    assert container_spec(RunOptions(), CONFIG, SURROUNDINGS).seccomp == DockerSeccomp()


def test_host_network_has_no_namespace_and_the_hosts_name() -> None:
    spec = container_spec(RunOptions(network=NetworkOptions(("host",))), CONFIG, SURROUNDINGS)
    assert (spec.namespace("network"), spec.hostname, dict(spec.sysctl)) == (None, "thehost", {})


def test_limits() -> None:
    limits = container_spec(
        RunOptions(limits=Limits(memory=64 << 20, cpus=1.5, pids_limit=9)), CONFIG, SURROUNDINGS
    ).resources
    assert (limits.memory_swap, limits.cpu_quota_us, limits.cpu_period_us) == (128 << 20, 150_000, 100_000)
    with pytest.raises(InvalidInput, match="6 MiB"):
        container_spec(RunOptions(limits=Limits(memory=1)), CONFIG, SURROUNDINGS)
