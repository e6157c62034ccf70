"""From a container's record to its first process, with pipes or a terminal whose other ends we hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from image.errors import ContainerNotFound, InvalidInput
from image.paths import Path
from image.value import dataclass
from runner.containers.options import container_spec
from runner.containers.records import Record, Records
from runner.containers.security import joined_container
from runner.containers.surroundings import look_around
from runner.network.ports import Port
from runner.runtime.privileges import Privileges
from runner.runtime.spawn import Stdio
from runner.volumes.request import merge
from store.layers import Workspace, mounted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.security import Shared
    from runner.containers.start import Container
    from runner.network.modes import Networking
    from runner.runtime.spec import Mount, Spec
    from store.layers import OverlayMount


@dataclass(frozen=True, slots=True)
class Begun:
    """A running container. ``outputs`` are our ends by stream, ``input`` likewise or -1; they become the caller's."""

    container: Container
    outputs: dict[int, bytes]
    input: int
    directory: Path
    ports: tuple[Port, ...]
    volumes: tuple[str, ...]


@contextmanager
def begin(records: Records, record: Record, root: Path, privileges: Privileges) -> Iterator[Begun]:
    """Start it; at the end of the block nothing of it is left but its files. Raises TierceError."""
    from runner.containers.start import start  # others want to know what a container is, and start none

    options = record.made.options
    with ExitStack() as held:
        points = held.enter_context(mount_points(records, record))
        spec = describe(records, record, tuple(points.values()))
        network = networking(records, record, root)
        stdio, outputs, own_input = _pipes(interactive=options.interactive, terminal=options.tty, held=held)
        container = held.enter_context(
            start(
                spec,
                rootfs(records, record),
                container_id=record.id,
                root=root,
                privileges=privileges,
                network=network,
                ports=options.ports(record.made.config),
                extra_hosts=options.network.hosts,
                stdio=stdio,
            )
        )
        for fd in (stdio.stdin, stdio.stdout, stdio.stderr):
            if fd is not None:
                os.close(fd)
        if container.console is not None:
            os.set_blocking(container.console, False)
            outputs, own_input = {container.console: b"stdout"}, container.console if options.interactive else -1
        yield Begun(
            container, outputs, own_input, root / "containers" / record.id, container.ports, tuple(points)
        )  # fmt: skip


def running_directory(records: Records, root: Path, word: str) -> Path:
    """In the runtime directory, by id, name or the start of an id. Raises NotFound when it does not run."""
    from runner.network.wishes import running

    with suppress(ContainerNotFound):
        word = records.get(word).id
    return running(root, word)


def describe(records: Records, record: Record, mounts: tuple[Mount, ...] = ()) -> Spec:
    """The record as a runtime configuration. Raises InvalidInput."""
    options = record.made.options
    found = look_around(
        options, record.id, record.made.cwd,
        environ={},  # it was completed when the container was created
        mounts=mounts, joined=joined(records, record),
    )  # fmt: skip
    return container_spec(options, record.made.config, found)


def networking(records: Records, record: Record, root: Path) -> Networking:
    """The networks that were asked for, as they are now. Raises NotFound, InvalidInput."""
    from runner.network.wishes import resolve

    return resolve(
        record.made.options.network,
        defined=records.store.root / "networks",
        root=root,
        container=record.id,
        name=record.name,
        find_container=lambda word: running_directory(records, root, word),
    )


def rootfs(records: Records, record: Record, *, volatile: bool = False) -> OverlayMount:
    """Its layers below its own files. ``volatile`` when these do not outlive the container."""
    layers = records.store.layers
    workspace = Workspace(record.made.directory, layers.base / record.made.directory)
    return layers.overlay(record.made.layers, workspace, volatile=volatile)


def joined(records: Records, record: Record) -> Mapping[Shared, int]:
    """The pids of the containers whose namespaces it shares. Raises ContainerNotFound, Conflict, InvalidInput."""
    asked = record.made.options.security
    modes: tuple[tuple[Shared, str], ...] = (("pid", asked.pid), ("ipc", asked.ipc))
    found: dict[Shared, int] = {}
    for kind, mode in modes:
        if word := joined_container(mode):
            other = records.running(word)
            if kind == "ipc" and other.made.options.security.ipc in ("", "private", "none"):
                raise InvalidInput(f"cannot join the IPC of container {word}: create that one with --ipc shareable")
            found[kind] = other.state.pid
    return found


@contextmanager
def mount_points(records: Records, record: Record) -> Iterator[dict[str, Mount]]:
    """What it mounts besides its root, by target, ready and held inside the block. Raises as ``provided``.

    Anonymous volumes got their names when the container was created.
    """
    requests = merge(record.made.options.mounts)
    if not requests:
        yield {}
        return
    from runner.volumes.provide import provided
    from runner.volumes.volumes import Volumes

    layers = records.store.layers
    volumes = Volumes(records.store.root)
    with provided(requests, volumes, lambda: mounted(layers.overlay(record.made.layers))) as points:
        yield {point.destination: point.mount for point in points}


def _pipes(*, interactive: bool, terminal: bool, held: ExitStack) -> tuple[Stdio, dict[int, bytes], int]:
    """The container's ends, and ours. None with a terminal: that comes with the container."""
    if terminal:
        return Stdio(), {}, -1
    given: list[int | None] = [None, None, None]
    outputs: dict[int, bytes] = {}
    own_input = -1
    if interactive:
        given[0], own_input = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(own_input, False)
    for number, name in ((1, b"stdout"), (2, b"stderr")):
        reader, given[number] = os.pipe2(os.O_CLOEXEC)
        outputs[reader] = name
    stdio = Stdio(given[0], given[1], given[2])
    ours = [*outputs, *([own_input] if own_input >= 0 else [])]

    def on_failure(kind: object, *_: object) -> None:
        if kind is not None:
            for fd in (*ours, *(fd for fd in given if fd is not None)):
                _close(fd)

    held.push(on_failure)
    return stdio, outputs, own_input


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # closed by whoever got further
