"""``tierce run``: a container in the foreground, from options to exit status.

Without a terminal the container gets the user's own files and pipes, and pipes of ours where
the user's descriptor is a terminal: a container never holds the terminal of its host, which
it could type into. With ``-t`` it gets a terminal of its own, and ours is its window.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from image.config import ContainerConfig
from image.errors import InvalidInput
from image.paths import Path
from runner.containers import terminal
from runner.containers.attach import OWN_STDIO, UserStdio, window
from runner.containers.options import RunOptions, Surroundings, container_spec
from runner.containers.relay import Relay
from runner.containers.signals import Signals
from runner.containers.start import Container, start
from runner.containers.stdio import container_stdio
from runner.containers.surroundings import look_around
from runner.network.modes import Networking
from runner.runtime.operations import Operation
from runner.runtime.privileges import Privileges
from runner.runtime.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.ready import Ready
    from runner.containers.security import Shared
    from store.layers import OverlayMount


def run(
    options: RunOptions,
    config: ContainerConfig,
    rootfs: OverlayMount | Path,
    *,
    container_id: str,
    root: Path,
    privileges: Privileges,
    environ: Mapping[str, str],
    cwd: str,
    warn: Callable[[str], None],
    mounts: tuple[Mount, ...] = (),
    joined: Mapping[Shared, int] | None = None,
    stdio: UserStdio = OWN_STDIO,
    trace: Callable[[Operation], None] | None = None,
    network: Networking | None = None,
    started: Callable[[Container], None] = lambda _: None,
    ended: Callable[[Container, int], None] = lambda _, __: None,
    ready: Ready | None = None,
) -> int:
    """Run the container to its end: its exit code, or 128 + the signal that ended it.

    ``rootfs`` and its upper directory are the caller's, to be thrown away or kept; so are the
    sources of ``mounts``. ``joined`` are the pids of containers whose namespaces are shared.
    ``root`` is the runtime directory; without ``network`` it is the kind that the options name;
    ``warn`` gets each thing that could not be as docker has it, ``started`` the container, ``ended``
    the same and its exit code while its control groups are still there. What is ``ready`` is used
    if it has the right descriptors. Only for
    the main thread: signals that arrive meanwhile go to the container.

    Raises TierceError when it could not be started; ``start.exit_status`` has the number for that.
    """
    found = _surroundings(options, container_id, cwd, environ, mounts, joined or {}, stdio)
    with ExitStack() as held:
        relay = Relay()
        given = held.enter_context(container_stdio(options, stdio, relay))
        signals = held.enter_context(Signals())
        container = held.enter_context(
            start(
                container_spec(options, config, found), rootfs, container_id=container_id, root=root,
                privileges=privileges, network=network or options.network.mode, ports=options.ports(config),
                extra_hosts=options.network.hosts, stdio=given.container, trace=trace,
                ready=ready if ready is not None and ready.watcher.stdio == given.container else None,
            )
        )  # fmt: skip
        given.close_container_side()
        started(container)
        for warning in container.warnings:
            warn(warning)
        if container.console is not None:
            held.enter_context(window(container, stdio, relay, interactive=options.interactive))
        code = _watch(container, relay, signals)
        ended(container, code)
        return code


def _surroundings(
    options: RunOptions, container_id: str, cwd: str, environ: Mapping[str, str], mounts: tuple[Mount, ...],
    joined: Mapping[Shared, int], stdio: UserStdio,
) -> Surroundings:  # fmt: skip
    """Raises InvalidInput when a terminal is to be typed into and there is none."""
    if options.tty and options.interactive and not os.isatty(stdio.stdin):
        raise InvalidInput("the input device is not a TTY")
    size = terminal.size(stdio.stdout, stdio.stdin)
    return look_around(options, container_id, cwd, environ=environ, mounts=mounts, joined=joined, size=size)


def _watch(container: Container, relay: Relay, signals: Signals) -> int:
    """To its end: signals and output go through, and its questions for names are answered."""
    signals.forward_to(container)
    if container.resolver is not None:
        relay.serve(container.resolver)
    relay.run(container, signals)
    return container.wait()
