"""What a container may do: capabilities, ``--security-opt``, namespaces that it shares. Pure.

Source: moby 28 ``daemon/daemon_unix.go`` (parseSecurityOpt), ``daemon/oci_linux.go``.
"""

from __future__ import annotations

from collections.abc import Mapping

from image.bare import loads
from image.errors import InvalidInput
from image.value import dataclass
from runner.runtime import defaults
from runner.runtime.spec import OF_PROCESS, DeviceRule, DockerSeccomp, Mount, Namespace, Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal, TypeAlias

    Shared: TypeAlias = Literal["pid", "ipc"]

_SYSCTLS: Final = frozenset({
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Security:
    """As the user wrote it. ``options`` are the words of ``--security-opt``; a seccomp profile is its JSON text.

    ``pid``, ``ipc``, ``uts``, ``userns`` and ``cgroupns`` are docker's modes, "" the default.
    """

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    options: tuple[str, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns: str = ""
    cgroupns: str = ""


@dataclass(frozen=True, slots=True)
class Protections:
    """What ``--security-opt`` changes. ``seccomp`` is a profile's JSON text, "unconfined" or "" for the default."""

    no_new_privileges: bool = False
    seccomp: str = ""
    system_paths: bool = True
    writable_cgroups: bool = False


def parse_protections(words: tuple[str, ...]) -> Protections:
    """The words together, later ones winning. Raises InvalidInput for what there is not."""
    found: dict[str, str | bool] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            key, separator, value = word.partition(":")
        match key, value:
            case "no-new-privileges", "" | "true" | "false":
                found["no_new_privileges"] = value != "false"
            case "writable-cgroups", "" | "true" | "false":
                found["writable_cgroups"] = value != "false"
            case "systempaths", "unconfined":
                found["system_paths"] = False
            case "seccomp", text if text:
                found["seccomp"] = "" if text == "builtin" else text
            case ("apparmor", "unconfined") | ("label", "disable"):
                pass  # so it is anyway: neither is applied
            case "apparmor" | "label", _:
                raise InvalidInput(f"security option {word!r}: AppArmor and SELinux profiles are not supported")
            case _:
                raise InvalidInput(
                    f"invalid security option {word[:60]!r}: there are no-new-privileges, seccomp=FILE|unconfined, "
                    "systempaths=unconfined, writable-cgroups, apparmor=unconfined, label=disable"
                )
    return Protections(**found)  # type: ignore[arg-type]  # the cases above know the types


def seccomp(protections: Protections, *, privileged: bool, capabilities: tuple[str, ...], machine: str) -> (
    Seccomp | DockerSeccomp | None
):  # fmt: skip
    """The filter: the user's profile even for a privileged container, else docker's. Raises InvalidInput."""
    if protections.seccomp == "unconfined" or (privileged and not protections.seccomp):
        return None
    if not protections.seccomp:
        return DockerSeccomp()
    from runner.runtime.seccomp import resolve_profile

    try:
        profile = loads(protections.seccomp)
    except ValueError as error:
        raise InvalidInput(f"cannot read the seccomp profile: {error}") from error
    return resolve_profile(profile, capabilities, machine)


# --- namespaces ----------------------------------------------------------------------------


def joined_container(mode: str) -> str:
    """The container that a mode such as ``container:NAME`` names, or ""."""
    return mode.removeprefix("container:") if mode.startswith("container:") else ""


def check_modes(security: Security, *, hostname: bool) -> None:
    """Raises InvalidInput for a mode that there is not, or that contradicts a host name of one's own."""
    known = {
        "pid": (security.pid, ("", "private", "host")),
        "ipc": (security.ipc, ("", "private", "shareable", "none", "host")),
        "uts": (security.uts, ("", "private", "host")),
        "userns": (security.userns, ("", "host")),
        "cgroupns": (security.cgroupns, ("", "private", "host")),
    }
    for name, (mode, modes) in known.items():
        if mode in modes or (name in ("pid", "ipc") and joined_container(mode)):
            continue
        raise InvalidInput(f"--{name}: invalid mode {mode!r}: there are {', '.join(filter(None, modes))}")
    if security.uts == "host" and hostname:
        raise InvalidInput("conflicting options: --hostname and --uts host")


def namespaces(security: Security, *, own_network: bool, joined: Mapping[Shared, int]) -> tuple[Namespace, ...]:
    """The container's own namespaces, and those of running containers by the pid in ``joined``."""
    shared = {"pid": security.pid, "ipc": security.ipc, "uts": security.uts, "cgroup": security.cgroupns}
    chosen = []
    for kind in defaults.NAMESPACES:
        if kind == "network" and not own_network:
            continue
        if kind in ("pid", "ipc") and joined_container(shared[kind]):
            chosen.append(Namespace(kind, f"/proc/{joined[kind]}/ns/{kind}"))  # type: ignore[index]
        elif shared.get(kind) != "host":
            chosen.append(Namespace(kind))
    return tuple(chosen)


def ipc_mounts(
    security: Security, shm_size: int | None, joined: Mapping[Shared, int] | None = None
) -> tuple[Mount, ...]:
    """What stands on /dev/shm instead of docker's default, for an ipc mode or a size in bytes."""
    if joined and "ipc" in joined:
        words = ("bind", "nosuid", "nodev", "noexec", f"{OF_PROCESS}{joined['ipc']}")
        return (Mount("/dev/shm", "bind", "/dev/shm", words),)  # noqa: S108  # of the other container
    if security.ipc == "host":
        return (Mount("/dev/shm", "bind", "/dev/shm", ("rbind", "rprivate")),)  # noqa: S108  # of the host, as asked for
    if shm_size:
        words = ("nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}")
        return (Mount("/dev/shm", "tmpfs", "shm", words),)  # noqa: S108  # inside the container
    return ()


def parse_sysctl(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` of ``--sysctl``, for what belongs to a namespace. Raises InvalidInput."""
    name, equals, value = text.partition("=")
    if not equals or not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise InvalidInput(f"sysctl {text!r} is not allowed: it would change the host, not the container")
    return name, value


def check_sysctls(sysctls: dict[str, str], security: Security, *, own_network: bool) -> None:
    """Raises InvalidInput for a sysctl of a namespace that is not the container's own."""
    for name in sysctls:
        if name.startswith("net.") and not own_network:
            raise InvalidInput(f"sysctl {name!r} not allowed in host network namespace")
        if not name.startswith("net.") and security.ipc == "host":
            raise InvalidInput(f"sysctl {name!r} not allowed in host IPC namespace")
