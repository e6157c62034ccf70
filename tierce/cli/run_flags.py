"""The flags that ``run`` and ``create`` share, and what they say as values.

``_PROCESS``, ``_MOUNTS``, ``_SECURITY`` and ``_LIMITS`` say what the container is (``RunOptions``); ``_LIFE`` how it is kept (``Policy``);
``_IMAGE`` which image it is made of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from image.errors import InvalidInput
from tierce.cli.command import content_trust_option
from tierce.cli.declare import Choice, option
from tierce.cli.network_flags import NETWORK, read_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeVar

    from runner.containers.limits import Limits
    from runner.containers.options import RunOptions
    from runner.containers.policy import Policy
    from runner.containers.security import Security
    from runner.runtime.spec import Throttle, ThrottleKind
    from runner.volumes.request import MountRequest

    _F = TypeVar("_F", bound=Callable[..., Any])


_THROTTLES: Final[tuple[ThrottleKind, ...]] = ("read_bps", "write_bps", "read_iops", "write_iops")
_PROCESS: Final = (
    option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; NAME alone is taken from here"),
    option("--env-file", "env_files", multiple=True, metavar="FILE", help="Set the variables of a file"),
    option("-w", "--workdir", default="", metavar="PATH", help="Working directory"),
    option("-u", "--user", default="", metavar="USER[:GROUP]", help="Name or number to run as"),
    option("--group-add", multiple=True, metavar="GROUP", help="One more group"),
    option("-i", "--interactive", is_flag=True, help="Pass standard input on"),
    option("-t", "--tty", is_flag=True, help="Give it a terminal"),
    option("--init", is_flag=True, help="Run an init as pid 1, which reaps processes and passes signals on"),
    option("--entrypoint", metavar="PROGRAM", help="Run this instead of the image's entrypoint"),
    *NETWORK,
    option("-h", "--hostname", default="", metavar="NAME", help="Host name"),
    option("--domainname", default="", metavar="NAME", help="Domain name"),
)
_MOUNTS: Final = (
    option(
        "-v", "--volume", "volumes", multiple=True, metavar="[SOURCE:]PATH[:ro]",
        help="Mount a path of the host or a volume",
    ),
    option(
        "--mount", "mounts", multiple=True, metavar="type=volume|bind|tmpfs,...", help="Mount, in docker's long form"
    ),
    option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount an empty file system in memory"),
    option(
        "--volumes-from", multiple=True, metavar="CONTAINER[:ro]", help="Mount what another container mounts"
    ),
    option("--volume-driver", default="", metavar="DRIVER", help="Driver of volumes that -v makes; only local"),
    option("--shm-size", metavar="BYTES", help="Size of /dev/shm  [64m]"),
    option("--read-only", is_flag=True, help="Make the root filesystem read-only"),
)  # fmt: skip
_SECURITY: Final = (
    option("--cap-add", multiple=True, metavar="CAP", help="Give a capability, or ALL"),
    option("--cap-drop", multiple=True, metavar="CAP", help="Take a capability, or ALL"),
    option("--privileged", is_flag=True, help="Give all capabilities and devices, lift all masks"),
    option(
        "--security-opt", multiple=True, metavar="OPTION",
        help="no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined",
    ),
    option("--device", "devices", multiple=True, metavar="HOST[:PATH][:rwm]", help="Give a device of the host"),
    option("--device-cgroup-rule", "device_rules", multiple=True, metavar="RULE", help="Allow devices: 'c 1:3 r'"),
    option("--sysctl", "sysctls", multiple=True, metavar="NAME=VALUE", help="Set a kernel parameter inside"),
    option("--ipc", default="", metavar="MODE", help="private, shareable, none, host or container:NAME  [private]"),
    option("--pid", default="", metavar="MODE", help="host or container:NAME: share its processes"),
    option("--uts", default="", metavar="MODE", help="host: share the name of the host"),
    option("--userns", default="", metavar="MODE", help="host: no user namespace, as it is anyway"),
    option("--cgroupns", default="", metavar="MODE", help="private or host  [private]"),
    option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="For the runtime's configuration"),
    option("--cgroup-parent", default="", metavar="PATH", help="Control group to be below"),
    option("--gpus", metavar="GPUS", help="Not supported: give --device"),
    option("--runtime", metavar="NAME", help="Only tierce's own"),
    option(
        "--isolation",
        type=Choice(("auto", "default", "namespaces", "oci", "rootless", "chroot", "emulated", "strict")),
        default="auto",
        help="How it is kept apart: the strongest that works; strict refuses what is weaker than namespaces",
    ),
)  # fmt: skip
_CHANGEABLE: Final = (
    option("-m", "--memory", metavar="BYTES", help="Limit of memory, such as 512m"),
    option("--memory-swap", metavar="BYTES", help="Limit of memory and swap together; -1 for none"),
    option("--memory-reservation", metavar="BYTES", help="Memory to fall back to when it is scarce"),
    option("--cpus", type=float, metavar="N", help="Limit of processors, such as 1.5"),
    option("-c", "--cpu-shares", type=int, metavar="N", help="Weight among the containers  [1024]"),
    option("--cpu-period", type=int, metavar="US", help="Period of the quota, in microseconds"),
    option("--cpu-quota", type=int, metavar="US", help="Processor time in each period, in microseconds"),
    option("--cpuset-cpus", default="", metavar="LIST", help="Processors to run on, such as 0-1"),
    option("--cpuset-mems", default="", metavar="LIST", help="Memory nodes to use"),
    option("--pids-limit", type=int, metavar="N", help="Limit of processes; -1 for none"),
    option("--blkio-weight", type=int, metavar="10-1000", help="Weight of its input and output"),
)
"""Limits that ``update`` changes too."""
_LIMITS: Final = (
    *_CHANGEABLE,
    option("--memory-swappiness", type=int, metavar="0-100", help="How readily it is swapped out"),
    option("--oom-kill-disable", is_flag=True, help="Do not kill it for want of memory"),
    option("--oom-score-adj", type=int, metavar="N", help="How likely it is killed for want of memory"),
    option("--ulimit", "ulimits", multiple=True, metavar="TYPE=SOFT[:HARD]", help="A resource limit"),
    *(
        option(
            f"--device-{kind.replace('_', '-')}",
            kind, multiple=True, metavar="DEVICE:RATE", help=f"Limit of a disk's {kind.replace('_', ' ')}",
        )
        for kind in _THROTTLES
    ),
)  # fmt: skip

_LIFE: Final = (
    option("--rm", "remove", is_flag=True, help="Remove it, and its anonymous volumes, at its end"),
    option("--name", default="", metavar="NAME", help="Name it"),
    option("--cidfile", default="", metavar="FILE", help="Write its id to a file"),
    option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Label it"),
    option("--label-file", "label_files", multiple=True, metavar="FILE", help="Label it with the lines of a file"),
    option("--restart", default="no", metavar="POLICY", help="no, always, unless-stopped, on-failure[:N]"),
    option("--stop-signal", default="", metavar="SIGNAL", help="Signal that stops it  [TERM]"),
    option("--stop-timeout", type=int, metavar="SECONDS", help="Seconds from that signal to KILL  [10]"),
    option("--log-driver", default="json-file", metavar="DRIVER", help="json-file, local or none"),
    option("--log-opt", "log_options", multiple=True, metavar="KEY=VALUE", help="max-size=10m, max-file=3"),
    option("--health-cmd", metavar="COMMAND", help="Ask it after its health by this"),
    option("--health-interval", default="", metavar="DURATION", help="So often  [30s]"),
    option("--health-timeout", default="", metavar="DURATION", help="And wait so long  [30s]"),
    option("--health-start-period", default="", metavar="DURATION", help="Failures count after this time  [0s]"),
    option("--health-start-interval", default="", metavar="DURATION", help="So often until then  [5s]"),
    option("--health-retries", type=int, default=0, metavar="N", help="So many failures are unhealthy  [3]"),
    option("--no-healthcheck", is_flag=True, help="Do not ask, whatever the image says"),
)

_IMAGE: Final = (
    option(
        "--pull",
        "policy",
        type=Choice(("missing", "always", "never")),
        default="missing",
        help="When to pull the image",
    ),
    option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]"),
    option("-q", "--quiet", is_flag=True, help="No progress of a pull"),
    option(
        "--tls-verify/--no-tls-verify", default=True, help="For a pull: demand https with a valid certificate  [on]"
    ),
)


def container_flags(command: _F) -> _F:
    """All flags of ``run`` and ``create``, in the order of the help."""
    for add in reversed((content_trust_option, *_PROCESS, *_MOUNTS, *_SECURITY, *_LIMITS, *_LIFE, *_IMAGE)):
        command = add(command)
    return command


def limit_flags(command: _F) -> _F:
    """Those that ``update`` has too."""
    for add in reversed(_CHANGEABLE):
        command = add(command)
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
    from image.value import replace
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
