"""``tierce run``'s options and an image's configuration → a ``Spec``. Pure.

Docker's rules: an entrypoint given on the command line drops the image's command; words
after the image replace it; the environment is docker's, then the image's, then the user's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Final

from image.config import ContainerConfig
from image.errors import InvalidInput
from image.value import dataclass
from runner.network.modes import NetworkMode
from runner.network.ports import Port, parse_exposed, parse_publish
from runner.network.wishes import NetworkOptions
from runner.runtime import capabilities, defaults
from runner.runtime.spec import Device, Mount, NamedUser, Process, Resources, Spec

_CPU_PERIOD_US: Final = 100_000
_LEAST_MEMORY: Final = 6 << 20
_IGNORED_VOLUME_OPTIONS: Final = frozenset({"z", "Z", "cached", "delegated", "consistent", "nocopy"})
"""SELinux labels and Docker Desktop's hints: docker on a host like ours ignores them too."""
_PROPAGATION: Final = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})


@dataclass(frozen=True, slots=True)
class RunOptions:
    """As the user wrote them. ``memory`` in bytes, ``cpus`` in processors; None where not given."""

    args: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    group_add: tuple[str, ...] = ()
    interactive: bool = False
    tty: bool = False
    network: NetworkOptions = NetworkOptions()  # a frozen value
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    hostname: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    read_only: bool = False
    no_new_privileges: bool = False
    memory: int | None = None
    cpus: float | None = None
    pids_limit: int | None = None

    def ports(self, config: ContainerConfig) -> tuple[Port, ...]:
        """What is to be published; with ``publish_all``, what the image exposes too. Raises InvalidInput."""
        given = tuple(port for text in self.publish for port in parse_publish(text))
        if not self.publish_all:
            return given
        exposed = {port for text in (*config.exposed_ports, *self.expose) for port in parse_exposed(text)}
        taken = {(port.container_port, port.protocol) for port in given}
        wanted = sorted((port.protocol, port.container_port) for port in exposed)
        return (*given, *(Port(number, protocol=kind) for kind, number in wanted if (number, kind) not in taken))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the spec takes from where the command runs. ``size`` is rows, columns of the terminal."""

    container_id: str
    environ: Mapping[str, str]
    cwd: str
    host_name: str
    host_devices: tuple[Device, ...] = ()
    size: tuple[int, int] | None = None


def container_spec(options: RunOptions, config: ContainerConfig, surroundings: Surroundings) -> Spec:
    """The container that these options make of this image. Raises InvalidInput."""
    mode = options.network.mode
    own_network = mode in (NetworkMode.NONE, NetworkMode.BRIDGE)
    shared_name = surroundings.host_name if mode is NetworkMode.HOST else surroundings.container_id[:12]
    hostname = options.hostname or shared_name
    granted = capabilities.choose(add=options.cap_add, drop=options.cap_drop, privileged=options.privileged)
    process = Process(
        args=command(options, config),
        env=defaults.environment(
            (*config.env, *_given_environment(options.env, surroundings.environ)),
            hostname=hostname,
            terminal=options.tty,
        ),
        cwd=_working_directory(options.workdir or config.working_dir),
        user=NamedUser(options.user or config.user, options.group_add),
        terminal=options.tty,
        console_size=surroundings.size if options.tty else None,
        capabilities=capabilities.granted(granted),
        no_new_privileges=options.no_new_privileges,
    )
    return defaults.default_spec(
        process,
        hostname=hostname,
        own_network=own_network,
        privileged=options.privileged,
        readonly_root=options.read_only,
        host_devices=surroundings.host_devices,
        mounts=(
            *(parse_tmpfs(text) for text in options.tmpfs),
            *(parse_volume(text, cwd=surroundings.cwd) for text in options.volumes),
        ),
        resources=resources(options),
    )


def command(options: RunOptions, config: ContainerConfig) -> tuple[str, ...]:
    """The words to execute. Raises InvalidInput when neither image nor user says any."""
    if options.entrypoint is None:
        words = (config.entrypoint or ()) + (options.args or config.cmd or ())
    else:
        words = ((options.entrypoint,) if options.entrypoint else ()) + options.args
    if not words:
        raise InvalidInput("no command specified: the image has none, give one after its name")
    return words


def _given_environment(given: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
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


def parse_volume(text: str, *, cwd: str) -> Mount:
    """``HOST_PATH:PATH[:OPTIONS]``. Raises InvalidInput, also for volumes with a name or none."""
    source, *rest = text.split(":")
    if not rest:
        raise InvalidInput(f"cannot mount {text!r}: volumes without a host path are not supported yet")
    target, *more = rest
    if len(more) > 1 or not target.startswith("/") or posixpath.normpath(target) == "/":
        raise InvalidInput(f"cannot mount {text!r}: expected HOST_PATH:/PATH[:ro]")
    if source.startswith((".", "~")):
        source = posixpath.join(cwd, source)
    if not source.startswith("/"):
        raise InvalidInput(f"cannot mount {text!r}: named volumes are not supported yet, give a host path")
    words = more[0].split(",") if more else []
    options, propagation = ["rbind"], "rprivate"
    for word in words:
        if word == "ro":
            options.append("rro")
        elif word in _PROPAGATION:
            propagation = word
        elif word not in _IGNORED_VOLUME_OPTIONS and word != "rw":
            raise InvalidInput(f"cannot mount {text!r}: option {word!r} is not supported")
    return Mount(posixpath.normpath(target), "bind", posixpath.normpath(source), (*options, propagation))


def parse_tmpfs(text: str) -> Mount:
    """``PATH[:OPTIONS]`` of ``--tmpfs``; docker adds noexec, nosuid and nodev. Raises InvalidInput."""
    target, _, given = text.partition(":")
    if not target.startswith("/"):
        raise InvalidInput(f"cannot mount a tmpfs on {target!r}: not an absolute path")
    words = tuple(word for word in given.split(",") if word)
    return Mount(posixpath.normpath(target), "tmpfs", "tmpfs", ("noexec", "nosuid", "nodev", *words))


def resources(options: RunOptions) -> Resources:
    """Docker's reading of the limits. Raises InvalidInput."""
    if options.memory is not None and options.memory < _LEAST_MEMORY:
        raise InvalidInput(f"memory limit of {options.memory} bytes is too small: at least 6 MiB")
    if options.cpus is not None and options.cpus <= 0:
        raise InvalidInput(f"invalid number of cpus: {options.cpus}")
    return Resources(
        memory_limit=options.memory,
        memory_swap=None if options.memory is None else 2 * options.memory,
        cpu_period_us=None if options.cpus is None else _CPU_PERIOD_US,
        cpu_quota_us=None if options.cpus is None else round(options.cpus * _CPU_PERIOD_US),
        pids_limit=options.pids_limit,
    )
