"""``tierce run``'s options and an image's configuration → a ``Spec``. Pure.

Docker's rules: an entrypoint given on the command line drops the image's command; words
after the image replace it; the environment is docker's, then the image's, then the user's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from image.config import ContainerConfig
from image.errors import InvalidInput
from image.value import dataclass, field, replace
from runner.containers import security
from runner.containers.devices import DeviceRequest
from runner.containers.limits import Limits, last_of_each, resources
from runner.containers.security import Security
from runner.network.modes import NetworkMode
from runner.network.ports import Port, parse_exposed, parse_publish
from runner.network.wishes import NetworkOptions
from runner.runtime import capabilities, defaults
from runner.runtime.spec import Device, DeviceRule, Mount, NamedUser, Process, Spec
from runner.volumes.request import MountRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from runner.containers.security import Shared

_LONGEST_HOST_NAME: Final = 63
_HOST_NAME: Final = r"[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """As the user wrote them. ``shm_size`` in bytes, None where not given."""

    args: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: tuple[str, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    group_add: tuple[str, ...] = ()
    interactive: bool = False
    tty: bool = False
    init: bool = False
    network: NetworkOptions = NetworkOptions()  # a frozen value
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    read_only: bool = False
    shm_size: int | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    cgroup_parent: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    limits: Limits = Limits()
    security: Security = Security()

    def ports(self, config: ContainerConfig) -> tuple[Port, ...]:
        """What is to be published; with ``publish_all``, what the image exposes too. Raises InvalidInput."""
        given = tuple(port for text in self.publish for port in parse_publish(text))
        if not self.publish_all:
            return given
        exposed = {port for text in (*config.exposed_ports, *self.expose) for port in parse_exposed(text)}
        taken = {(port.container_port, port.protocol) for port in given}
        wanted = sorted((port.protocol, port.container_port) for port in exposed)
        return (*given, *(Port(number, protocol=kind) for kind, number in wanted if (number, kind) not in taken))

    def cgroups_path(self, container_id: str) -> str:
        """Where ``--cgroup-parent`` wants the control groups, relative to each hierarchy; empty for the usual place."""
        return f"{self.cgroup_parent}/{container_id}" if self.cgroup_parent else ""


def _nothing_joined() -> dict[Shared, int]:
    return {}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the spec takes from where the command runs.

    ``size`` is rows, columns of the terminal; ``mounts`` the mount points that are ready;
    ``devices`` what ``--device`` has found; ``joined`` the pids of the running containers whose
    namespaces are shared; ``processors`` how many this machine has, 0 for unknown.
    """

    container_id: str
    environ: Mapping[str, str]
    cwd: str
    host_name: str
    host_devices: tuple[Device, ...] = ()
    size: tuple[int, int] | None = None
    mounts: tuple[Mount, ...] = ()
    devices: tuple[tuple[Device, DeviceRule], ...] = ()
    joined: Mapping[Shared, int] = field(default_factory=_nothing_joined, hash=False)
    processors: int = 0
    machine: str = "x86_64"


def container_spec(options: RunOptions, config: ContainerConfig, surroundings: Surroundings) -> Spec:
    """The container that these options make of this image. Raises InvalidInput."""
    own_network = options.network.mode in (NetworkMode.NONE, NetworkMode.BRIDGE)
    asked = options.security
    security.check_modes(asked, hostname=bool(options.hostname))
    sysctls = dict(options.sysctls)
    security.check_sysctls(sysctls, asked, own_network=own_network)
    protections = security.parse_protections(asked.options)
    granted = capabilities.choose(add=asked.cap_add, drop=asked.cap_drop, privileged=asked.privileged)
    hostname = _host_name(options, surroundings)
    taken = {mount.destination for mount in surroundings.mounts}
    wanted = security.ipc_mounts(asked, options.shm_size, surroundings.joined)
    shared = tuple(mount for mount in wanted if mount.destination not in taken)
    spec = defaults.default_spec(
        _process(options, config, surroundings, hostname, granted, protections),
        hostname=hostname,
        own_network=own_network,
        privileged=asked.privileged,
        readonly_root=options.read_only,
        host_devices=surroundings.host_devices,
        mounts=shared + surroundings.mounts,
        resources=resources(options.limits, processors=surroundings.processors),
    )
    return _opened(
        replace(
            spec,
            domainname=options.domainname,
            mounts=_without_shm(spec.mounts) if asked.ipc == "none" else spec.mounts,
            namespaces=security.namespaces(asked, own_network=own_network, joined=surroundings.joined),
            sysctl={**spec.sysctl, **sysctls},
            seccomp=security.seccomp(
                protections, privileged=asked.privileged, capabilities=granted, machine=surroundings.machine
            ),
            devices=(*spec.devices, *(device for device, _ in surroundings.devices)),
            cgroups_path=options.cgroups_path(surroundings.container_id),
            annotations=dict(options.annotations),
        ),
        options,
        surroundings,
        protections,
    )


def _process(
    options: RunOptions,
    config: ContainerConfig,
    surroundings: Surroundings,
    hostname: str,
    granted: tuple[str, ...],
    protections: security.Protections,
) -> Process:
    return Process(
        args=command(options, config),
        env=defaults.environment(
            (*config.env, *given_environment(options.env, surroundings.environ)),
            hostname=hostname,
            terminal=options.tty,
        ),
        cwd=_working_directory(options.workdir or config.working_dir),
        user=NamedUser(options.user or config.user, options.group_add),
        terminal=options.tty,
        console_size=surroundings.size if options.tty else None,
        capabilities=capabilities.granted(granted),
        rlimits=last_of_each(options.limits.ulimits),
        no_new_privileges=protections.no_new_privileges,
        oom_score_adj=options.limits.oom_score_adj,
        init=options.init,
    )


def _opened(spec: Spec, options: RunOptions, surroundings: Surroundings, protections: security.Protections) -> Spec:
    """Without the protections that the user has taken away, with the devices that they have given."""
    rules = tuple(rule for _, rule in surroundings.devices) + options.security.device_rules
    allowed = spec.resources.devices
    if allowed:
        allowed += rules
    elif options.security.pid == "host":
        # a group of its own although nothing is limited: without a pid namespace it alone tells who is to be ended
        allowed = (DeviceRule(allow=True),)
    mounts = spec.mounts
    if protections.writable_cgroups:
        mounts = tuple(defaults.writable(mount) if mount.type == "cgroup" else mount for mount in mounts)
    return replace(
        spec,
        mounts=mounts,
        masked_paths=spec.masked_paths if protections.system_paths else (),
        readonly_paths=spec.readonly_paths if protections.system_paths else (),
        resources=replace(spec.resources, devices=allowed),
    )


def _without_shm(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    return tuple(mount for mount in mounts if (mount.destination, mount.source) != ("/dev/shm", "shm"))  # noqa: S108  # inside the container


def _host_name(options: RunOptions, surroundings: Surroundings) -> str:
    """Raises InvalidInput."""
    if not options.hostname:
        hosts_own = options.network.mode is NetworkMode.HOST  # with --uts host too docker gives HOSTNAME an id
        return surroundings.host_name if hosts_own else surroundings.container_id[:12]
    import re  # most containers are called by their id

    if len(options.hostname) > _LONGEST_HOST_NAME or not re.fullmatch(_HOST_NAME, options.hostname):
        raise InvalidInput(f"invalid hostname: {options.hostname!r}")
    return options.hostname


def command(options: RunOptions, config: ContainerConfig) -> tuple[str, ...]:
    """The words to execute. Raises InvalidInput when neither image nor user says any."""
    if options.entrypoint is None:
        words = (config.entrypoint or ()) + (options.args or config.cmd or ())
    else:
        words = ((options.entrypoint,) if options.entrypoint else ()) + options.args
    if not words:
        raise InvalidInput("no command specified: the image has none, give one after its name")
    return words


def given_environment(given: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """``NAME`` alone takes the value from here, or unsets what the image sets."""

    def complete(item: str) -> str:
        name, separator, _ = item.partition("=")
        if not name:
            raise InvalidInput(f"invalid environment variable: {item!r}")
        return item if separator or name not in environ else f"{name}={environ[name]}"

    return tuple(complete(item) for item in given)


def _working_directory(path: str) -> str:
    if path and not path.startswith("/"):
        raise InvalidInput(f"the working directory {path!r} is invalid, it needs to be an absolute path")
    return posixpath.normpath(path) if path else "/"
