"""One container, composed: lease, network, control groups and process, and their end.

The builder starts its RUN steps here and ``foreground`` its container. Everything that is
taken is given back by ``Container.close``, in the reverse order, whatever fails.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from image.errors import CommandNotStarted, ContainerNotStarted, TierceError
from image.paths import Path
from image.value import replace
from runner.containers import groups as places
from runner.containers.members import groups_of
from runner.containers.sweep import sweep
from runner.network import endpoints
from runner.network.modes import Connection, Networking, NetworkMode, connect
from runner.network.ports import Port
from runner.runtime import state
from runner.runtime.cgroup import ControlGroups
from runner.runtime.launch import launch
from runner.runtime.operations import Operation
from runner.runtime.privileges import Privileges
from runner.runtime.running import Running
from runner.runtime.spawn import Stdio, Watcher, spawn
from runner.runtime.spec import Namespace, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Self

    from runner.containers.ready import Ready
    from store.layers import OverlayMount


CLI_FAILED: Final = 125
"""Docker's exit status for a container that could not be started."""


def exit_status(error: TierceError) -> int:
    """What a command exits with that could not run a container: 125, or 126 and 127 for the container's own command."""
    return error.status if isinstance(error, CommandNotStarted | ContainerNotStarted) else CLI_FAILED


class Container:
    """A running container and all that it holds. Use it as a context manager."""

    def __init__(
        self,
        running: Running,
        connection: Connection,
        held: ExitStack,
        groups: Callable[[], ControlGroups],
        lease: int,
    ) -> None:
        self._running = running
        self.lease = lease
        self._groups = groups
        self._held = held
        self.pid = running.pid
        self.console = running.console
        self.ports: tuple[Port, ...] = connection.ports
        self.address = connection.address
        self.networks = connection.networks
        self.resolver = connection.resolver
        self.network_process = connection.process
        self.warnings = tuple(connection.warnings + running.warnings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when the container has ended."""
        return self._running.fileno()

    @property
    def processes(self) -> tuple[int, int]:
        """Children of this process: the watcher, and who answers for owners of files, or 0."""
        return self._running.watcher, self._running.supervisor

    @property
    def pidfd(self) -> int:
        """Of the container's first process."""
        return self._running.pidfd

    def wait(self) -> int:
        """Until the end: its exit code, or 128 + the signal that killed it."""
        return self._running.wait()

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel has killed one of its processes for want of memory; asked before ``close``."""
        return self._running.oom_killed or self._groups().oom_killed()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """A signal for its pid 1; KILL ends every process of the container. Safe from any thread."""
        self._running.kill(number)

    def resize(self, rows: int, columns: int) -> None:
        self._running.resize(rows, columns)

    def close(self) -> None:
        """Kill it if it lives and leave nothing of it behind. Idempotent."""
        self._held.close()


def start(
    spec: Spec,
    rootfs: OverlayMount | Path,
    *,
    container_id: str,
    root: Path,
    privileges: Privileges,
    network: Networking | NetworkMode = NetworkMode.NONE,
    ports: Sequence[Port] = (),
    extra_hosts: Sequence[tuple[str, str]] = (),
    stdio: Stdio = Stdio(),  # a frozen value
    trace: Callable[[Operation], None] | None = None,
    spawn: Callable[[Stdio, int], Watcher] = spawn,
    ready: Ready | None = None,
) -> Container:
    """Start ``spec`` on this network, after sweeping up what killed processes left.

    ``root`` is the runtime directory. The spec has a network namespace unless the mode is
    host; /etc/hosts, /etc/hostname and /etc/resolv.conf are added, except where the spec
    already mounts something there. ``spawn`` makes the process that becomes the container, unless it is
    ``ready``; then the container has that one's id and descriptors.
    Safe from several threads at once.

    Raises what ``launch`` and ``Connection`` raise; nothing is left behind then.
    """
    privileges.require()
    sweep(root, privileges.cgroups)

    def groups() -> ControlGroups:
        path = spec.cgroups_path or places.remembered(lease.directory)
        return ControlGroups(groups_of(privileges.cgroups, container_id, path))

    with ExitStack() as held:
        lease = state.acquire(root, container_id) if ready is None else ready.lease
        held.callback(lease.release)
        watcher = held.enter_context(spawn(stdio, lease.fd) if ready is None else ready.watcher)
        if _needs_group(spec, privileges):
            processes = [
                watcher.pid,
                os.getpid(),
            ]  # a scope goes with its last process: not before we have looked at it
            path = places.choose(privileges, lease.directory, container_id, processes, spec.cgroups_path)
            spec = replace(spec, cgroups_path=path)
        places.remember(lease.directory, spec.cgroups_path)
        held.callback(lambda: groups().remove())
        connection = held.enter_context(
            connect(network, root=root, lease=lease, hostname=spec.hostname, ports=ports, extra_hosts=extra_hosts)
        )
        running = held.enter_context(
            launch(
                _on_network(spec, connection),
                rootfs,
                watcher,
                privileges=privileges,
                container_id=container_id,
                network=connection,
                trace=trace,
            )
        )
        return Container(running, connection, held.pop_all(), groups, lease.fd)


def give_back(directory: Path, cgroups: ControlGroups) -> None:
    """What ``Container.close`` does, of a container that has ended and whose objects are gone.

    ``directory`` is the container's in the runtime directory, whose lease is held by the caller.
    """
    place = endpoints.read(directory)
    if place is not None and place.endpoints:
        from runner.network.bridge import leave
        from runner.network.namespace import where_bridges_are

        where_bridges_are(directory.parents[1], lambda: leave(directory.parents[1], directory))
    cgroups.remove()
    from store.directories import discard_tree

    discard_tree(directory)


def _needs_group(spec: Spec, privileges: Privileges) -> bool:
    """Of one's own tree: root has the machine's."""
    if privileges.initial_user_namespace:
        return False
    from runner.runtime.fit import limits

    return bool(limits(spec.resources))


def _on_network(spec: Spec, connection: Connection) -> Spec:
    """With the generated files, which come before the spec's own binds: those win."""
    taken = {mount.destination for mount in spec.mounts}
    added = tuple(mount for mount in connection.mounts if mount.destination not in taken)
    first_bind = next((at for at, mount in enumerate(spec.mounts) if mount.type == "bind"), len(spec.mounts))
    return replace(
        spec,
        hostname=spec.hostname if spec.namespace("uts") else "",  # for the files alone, where the host's name is shared
        mounts=spec.mounts[:first_bind] + added + spec.mounts[first_bind:],
        sysctl={**spec.sysctl, **connection.sysctl},
        namespaces=_joining(spec, connection.namespace),
    )


def _joining(spec: Spec, path: str) -> tuple[Namespace, ...]:
    return (*spec.namespaces, Namespace("network", path)) if path else spec.namespaces
