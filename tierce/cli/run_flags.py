"""The flags that ``run`` and ``create`` share, and what they say as values.

``_PROCESS``, ``_MOUNTS``, ``_SECURITY`` and ``_LIMITS`` say what the container is (``RunOptions``); ``_LIFE`` how it is kept (``Policy``);
``_IMAGE`` which image it is made of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from image.errors import InvalidInput
from tierce.cli.command import content_trust_option
from tierce.cli.network_flags import NETWORK, read_network

if TYPE_CHECKING:
    from runner.containers.limits import Limits
    from runner.containers.options import RunOptions
    from runner.containers.policy import Policy
    from runner.containers.security import Security
    from runner.runtime.spec import Throttle, ThrottleKind
    from runner.volumes.request import MountRequest

_F = TypeVar("_F", bound=Callable[..., Any])

_THROTTLES: Final[tuple[ThrottleKind, ...]] = ("read_bps", "write_bps", "read_iops", "write_iops")
_PROCESS: Final = (
    click.option(
        "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; NAME alone is taken from here"
    ),
    click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Set the variables of a file"),
    click.option("-w", "--workdir", default="", metavar="PATH", help="Working directory"),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Name or number to run as"),
    click.option("--group-add", multiple=True, metavar="GROUP", help="One more group"),
    click.option("-i", "--interactive", is_flag=True, help="Pass standard input on"),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal"),
    click.option("--init", is_flag=True, help="Run an init as pid 1, which reaps processes and passes signals on"),
    click.option("--entrypoint", metavar="PROGRAM", help="Run this instead of the image's entrypoint"),
    *NETWORK,
    click.option("-h", "--hostname", default="", metavar="NAME", help="Host name"),
    click.option("--domainname", default="", metavar="NAME", help="Domain name"),
)
_MOUNTS: Final = (
    click.option(
        "-v", "--volume", "volumes", multiple=True, metavar="[SOURCE:]PATH[:ro]",
        help="Mount a path of the host or a volume",
    ),
    click.option(
        "--mount", "mounts", multiple=True, metavar="type=volume|bind|tmpfs,...", help="Mount, in docker's long form"
    ),
    click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount an empty file system in memory"),
    click.option(
        "--volumes-from", multiple=True, metavar="CONTAINER[:ro]", help="Mount what another container mounts"
    ),
    click.option("--volume-driver", default="", metavar="DRIVER", help="Driver of volumes that -v makes; only local"),
    click.option("--shm-size", metavar="BYTES", help="Size of /dev/shm  [64m]"),
    click.option("--read-only", is_flag=True, help="Make the root filesystem read-only"),
)  # fmt: skip
_SECURITY: Final = (
    click.option("--cap-add", multiple=True, metavar="CAP", help="Give a capability, or ALL"),
    click.option("--cap-drop", multiple=True, metavar="CAP", help="Take a capability, or ALL"),
    click.option("--privileged", is_flag=True, help="Give all capabilities and devices, lift all masks"),
    click.option(
        "--security-opt", multiple=True, metavar="OPTION",
        help="no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined",
    ),
    click.option("--device", "devices", multiple=True, metavar="HOST[:PATH][:rwm]", help="Give a device of the host"),
    click.option("--device-cgroup-rule", "device_rules", multiple=True, metavar="RULE", help="Allow devices: 'c 1:3 r'"),
    click.option("--sysctl", "sysctls", multiple=True, metavar="NAME=VALUE", help="Set a kernel parameter inside"),
    click.option("--ipc", default="", metavar="MODE", help="private, shareable, none, host or container:NAME  [private]"),
    click.option("--pid", default="", metavar="MODE", help="host or container:NAME: share its processes"),
    click.option("--uts", default="", metavar="MODE", help="host: share the name of the host"),
    click.option("--userns", default="", metavar="MODE", help="host: no user namespace, as it is anyway"),
    click.option("--cgroupns", default="", metavar="MODE", help="private or host  [private]"),
    click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="For the runtime's configuration"),
    click.option("--cgroup-parent", default="", metavar="PATH", help="Control group to be below"),
    click.option("--gpus", metavar="GPUS", help="Not supported: give --device"),
    click.option("--runtime", metavar="NAME", help="Only tierce's own"),
    click.option(
        "--isolation",
        type=click.Choice(["auto", "default", "namespaces", "oci", "rootless", "chroot", "emulated", "strict"]),
        default="auto",
        help="How it is kept apart: the strongest that works; strict refuses what is weaker than namespaces",
    ),
)  # fmt: skip
_CHANGEABLE: Final = (
    click.option("-m", "--memory", metavar="BYTES", help="Limit of memory, such as 512m"),
    click.option("--memory-swap", metavar="BYTES", help="Limit of memory and swap together; -1 for none"),
    click.option("--memory-reservation", metavar="BYTES", help="Memory to fall back to when it is scarce"),
    click.option("--cpus", type=float, metavar="N", help="Limit of processors, such as 1.5"),
    click.option("-c", "--cpu-shares", type=int, metavar="N", help="Weight among the containers  [1024]"),
    click.option("--cpu-period", type=int, metavar="US", help="Period of the quota, in microseconds"),
    click.option("--cpu-quota", type=int, metavar="US", help="Processor time in each period, in microseconds"),
    click.option("--cpuset-cpus", default="", metavar="LIST", help="Processors to run on, such as 0-1"),
    click.option("--cpuset-mems", default="", metavar="LIST", help="Memory nodes to use"),
    click.option("--pids-limit", type=int, metavar="N", help="Limit of processes; -1 for none"),
    click.option("--blkio-weight", type=int, metavar="10-1000", help="Weight of its input and output"),
)
"""Limits that ``update`` changes too."""
_LIMITS: Final = (
    *_CHANGEABLE,
    click.option("--memory-swappiness", type=int, metavar="0-100", help="How readily it is swapped out"),
    click.option("--oom-kill-disable", is_flag=True, help="Do not kill it for want of memory"),
    click.option("--oom-score-adj", type=int, metavar="N", help="How likely it is killed for want of memory"),
    click.option("--ulimit", "ulimits", multiple=True, metavar="TYPE=SOFT[:HARD]", help="A resource limit"),
    *(
        click.option(
            f"--device-{kind.replace('_', '-')}",
            kind, multiple=True, metavar="DEVICE:RATE", help=f"Limit of a disk's {kind.replace('_', ' ')}",
        )
        for kind in _THROTTLES
    ),
)  # fmt: skip

_LIFE: Final = (
    click.option("--rm", "remove", is_flag=True, help="Remove it, and its anonymous volumes, at its end"),
    click.option("--name", default="", metavar="NAME", help="Name it"),
    click.option("--cidfile", default="", metavar="FILE", help="Write its id to a file"),
    click.option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Label it"),
    click.option(
        "--label-file", "label_files", multiple=True, metavar="FILE", help="Label it with the lines of a file"
    ),
    click.option("--restart", default="no", metavar="POLICY", help="no, always, unless-stopped, on-failure[:N]"),
    click.option("--stop-signal", default="", metavar="SIGNAL", help="Signal that stops it  [TERM]"),
    click.option("--stop-timeout", type=int, metavar="SECONDS", help="Seconds from that signal to KILL  [10]"),
    click.option("--log-driver", default="json-file", metavar="DRIVER", help="json-file, local or none"),
    click.option("--log-opt", "log_options", multiple=True, metavar="KEY=VALUE", help="max-size=10m, max-file=3"),
    click.option("--health-cmd", metavar="COMMAND", help="Ask it after its health by this"),
    click.option("--health-interval", default="", metavar="DURATION", help="So often  [30s]"),
    click.option("--health-timeout", default="", metavar="DURATION", help="And wait so long  [30s]"),
    click.option("--health-start-period", default="", metavar="DURATION", help="Failures count after this time  [0s]"),
    click.option("--health-start-interval", default="", metavar="DURATION", help="So often until then  [5s]"),
    click.option("--health-retries", type=int, default=0, metavar="N", help="So many failures are unhealthy  [3]"),
    click.option("--no-healthcheck", is_flag=True, help="Do not ask, whatever the image says"),
)

_IMAGE: Final = (
    click.option(
        "--pull",
        "policy",
        type=click.Choice(["missing", "always", "never"]),
        default="missing",
        help="When to pull the image",
    ),
    click.option(
        "--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]"
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress of a pull"),
    click.option(
        "--tls-verify/--no-tls-verify", default=True, help="For a pull: demand https with a valid certificate  [on]"
    ),
)


def container_flags(command: _F) -> _F:
    """All flags of ``run`` and ``create``, in the order of the help."""
    for option in reversed((content_trust_option, *_PROCESS, *_MOUNTS, *_SECURITY, *_LIMITS, *_LIFE, *_IMAGE)):
        command = option(command)
    return command


def limit_flags(command: _F) -> _F:
    """Those that ``update`` has too."""
    for option in reversed(_CHANGEABLE):
        command = option(command)
    return command


def read_options(words: Sequence[str], flags: Mapping[str, Any], *, cwd: str | None = None) -> RunOptions:
    """What the container is to be. ``flags`` are those of ``container_flags``. Raises InvalidInput."""
    from runner.containers.devices import parse_device
    from runner.containers.options import RunOptions
    from runner.containers.security import parse_sysctl
    from tierce.run import read_env_file

    _refuse(flags)
    return RunOptions(
        args=tuple(words),
        entrypoint=flags["entrypoint"],
        env=(*(line for path in flags["env_files"] for line in read_env_file(path)), *flags["env"]),
        mounts=_read_mounts(flags, cwd or os.getcwd()),
        volumes_from=tuple(flags["volumes_from"]),
        workdir=flags["workdir"],
        user=flags["user"],
        group_add=tuple(flags["group_add"]),
        interactive=flags["interactive"],
        tty=flags["tty"],
        init=flags["init"],
        network=read_network(flags),
        publish=tuple(flags["publish"]),
        publish_all=flags["publish_all"],
        expose=tuple(flags["expose"]),
        hostname=flags["hostname"],
        domainname=flags["domainname"],
        read_only=flags["read_only"],
        shm_size=_size(flags["shm_size"]),
        sysctls=tuple(parse_sysctl(text) for text in flags["sysctls"]),
        devices=tuple(parse_device(text) for text in flags["devices"]),
        cgroup_parent=flags["cgroup_parent"],
        annotations=tuple(_annotation(text) for text in flags["annotations"]),
        limits=read_limits(flags),
        security=_read_security(flags),
    )


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InvalidInput(f"invalid --annotation {text!r}: want KEY=VALUE")
    return key, value


def read_policy(flags: Mapping[str, Any]) -> Policy:
    """How it is kept. Raises InvalidInput."""
    from image.durations import parse_duration_ns
    from runner.containers.policy import HealthFlags, Policy, key_values
    from tierce.run import read_env_file

    def duration(name: str) -> int:
        return parse_duration_ns(flags[name]) if flags[name] else 0

    labels = [line for path in flags["label_files"] for line in read_env_file(path)]
    return Policy(
        restart=flags["restart"] or "no",
        log_driver=flags["log_driver"],
        log_options=key_values(flags["log_options"]),
        labels=key_values([*labels, *flags["labels"]]),
        stop_signal=flags["stop_signal"],
        stop_timeout_s=flags["stop_timeout"],
        health=HealthFlags(
            flags["health_cmd"],
            duration("health_interval"),
            duration("health_timeout"),
            duration("health_start_period"),
            duration("health_start_interval"),
            flags["health_retries"],
            flags["no_healthcheck"],
        ),
        remove=flags["remove"],
    )


def _refuse(flags: Mapping[str, Any]) -> None:
    """What docker has and there is not. Raises InvalidInput."""
    if flags["gpus"]:
        raise InvalidInput("--gpus is not supported: no device driver is known; give the nodes with --device")
    if flags["runtime"] not in (None, "", "tierce", "tierce-runtime"):
        raise InvalidInput(f"unknown or invalid runtime name: {flags['runtime']}: there is tierce-runtime")
    if flags["volume_driver"] not in ("", "local"):
        raise InvalidInput(f"volume driver {flags['volume_driver']!r} is not supported, use local")


def _read_mounts(flags: Mapping[str, Any], cwd: str) -> tuple[MountRequest, ...]:
    if not (flags["volumes"] or flags["mounts"] or flags["tmpfs"]):
        return ()
    from runner.volumes.long_form import parse_mount
    from runner.volumes.request import parse_tmpfs
    from runner.volumes.short_form import parse_volume

    return (
        *(parse_volume(text, cwd=cwd) for text in flags["volumes"]),
        *(parse_mount(text, cwd=cwd) for text in flags["mounts"]),
        *(parse_tmpfs(text) for text in flags["tmpfs"]),
    )


def _read_security(flags: Mapping[str, Any]) -> Security:
    from runner.containers.devices import parse_device_rule
    from runner.containers.security import Security
    from tierce.run import inline_seccomp

    return Security(
        cap_add=tuple(flags["cap_add"]),
        cap_drop=tuple(flags["cap_drop"]),
        privileged=flags["privileged"],
        options=inline_seccomp(flags["security_opt"]),
        device_rules=tuple(parse_device_rule(text) for text in flags["device_rules"]),
        **{name: flags[name] for name in ("pid", "ipc", "uts", "userns", "cgroupns")},
    )


def read_limits(flags: Mapping[str, Any]) -> Limits:
    """All limits. Raises InvalidInput."""
    from dataclasses import replace

    from runner.containers.limits import parse_ulimit

    return replace(
        read_changeable(flags),
        memory_swappiness=flags["memory_swappiness"],
        oom_kill_disable=flags["oom_kill_disable"],
        oom_score_adj=flags["oom_score_adj"],
        throttles=tuple(_throttle(kind, text) for kind in _THROTTLES for text in flags[kind]),
        ulimits=tuple(parse_ulimit(text) for text in flags["ulimits"]),
    )


def read_changeable(flags: Mapping[str, Any]) -> Limits:
    """Those of ``limit_flags``. Raises InvalidInput."""
    from runner.containers.limits import Limits

    return Limits(
        memory=_size(flags["memory"]),
        memory_swap=-1 if flags["memory_swap"] == "-1" else _size(flags["memory_swap"]),
        memory_reservation=_size(flags["memory_reservation"]),
        cpus=flags["cpus"],
        cpu_shares=flags["cpu_shares"],
        cpu_period_us=flags["cpu_period"],
        cpu_quota_us=flags["cpu_quota"],
        cpuset_cpus=flags["cpuset_cpus"],
        cpuset_mems=flags["cpuset_mems"],
        pids_limit=flags["pids_limit"],
        blkio_weight=flags["blkio_weight"],
    )


def _throttle(kind: ThrottleKind, text: str) -> Throttle:
    from runner.containers.devices import find_throttle

    path, colon, rate = text.rpartition(":")
    size = _size(rate) if kind.endswith("bps") else int(rate) if rate.isdigit() else None
    if not colon or size is None:
        raise InvalidInput(f"bad format for a device's limit: {text!r}, want DEVICE:RATE")
    return find_throttle(kind, path, size)


def _size(text: str | None) -> int | None:
    if not text:
        return None
    from tierce.cli.units import parse_size

    return parse_size(text)
