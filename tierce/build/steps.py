"""One RUN step: a build's request to a runtime spec, the process, its output."""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Event, Lock
from typing import TYPE_CHECKING, BinaryIO, Final, assert_never

from builder.ports import HostMount, MemoryMount, SandboxRequest, Stream
from runner.containers.start import Container, start
from runner.network.modes import Networking, NetworkMode, connect, parse_mode
from runner.runtime import capabilities, cgroup
from runner.runtime.defaults import DEVICE_RULES, default_spec, host_devices
from runner.runtime.fork_server import ForkServer
from runner.runtime.privileges import probe
from runner.runtime.spawn import Stdio, spawn
from runner.runtime.spec import Capabilities, Mount, NamedUser, Process, Resources, Spec
from runner.runtime.state import Lease, acquire, runtime_directory

if TYPE_CHECKING:
    from runner.containers.options import RunOptions

_POLL_MS: Final = 100
_BLOCK: Final = 1 << 16


class StepRunner:
    """Runs the steps of one build; safe to use from several threads. Close it after the last.

    The bridge is removed with its last container, and making one takes longer than all else of
    a step: so a build that used it keeps an address of its own until it is closed.
    """

    def __init__(self, environ: Mapping[str, str], options: RunOptions | None) -> None:
        self._options = options
        self._runtime_directory = runtime_directory(environ, os.geteuid())
        self._privileges = probe()
        self._lock = Lock()
        self._held = ExitStack()
        self._lease: Lease | None = None
        self._server: ForkServer | None = None
        self._holds_bridge = False

    def close(self) -> None:
        """Let go of the network, and end the process that the steps are forks of."""
        self._held.close()

    def prepare(self) -> None:
        """Start the process that steps are forks of.

        It has the mounts of the calling thread: an ordinary user's forks may leave these for those of a
        step's own, but not the other way round. Of v1's device groups it is in one already, so that no
        step needs to be moved into one.
        """
        with self._lock:
            if self._server is not None:
                return
            lease, cgroups = self._own_lease(), self._privileges.cgroups
            self._server = self._held.enter_context(ForkServer())
            if "devices" in cgroups.v1 and self._privileges.initial_user_namespace:
                groups = cgroup.create(cgroups, lease.container_id, Resources(devices=DEVICE_RULES))
                self._server.limit_devices(groups, DEVICE_RULES)

    def _own_lease(self) -> Lease:
        """The build's: what steps share is swept as a container's when the build was killed."""
        if self._lease is None:
            self._lease = acquire(self._runtime_directory, f"build-{secrets.token_hex(8)}")
            self._held.callback(self._lease.release)
        return self._lease

    def _hold_bridge(self) -> None:
        with self._lock:
            if not self._holds_bridge:
                hold = connect(NetworkMode.BRIDGE, root=self._runtime_directory, lease=self._own_lease(), hostname="")
                self._held.enter_context(hold)
                self._holds_bridge = True

    def run(self, request: SandboxRequest, output: Callable[[Stream, bytes], None], cancelled: Event) -> int:
        """See ``builder.ports.Sandbox.run``."""
        mode = parse_mode(request.network)
        if mode is NetworkMode.BRIDGE:
            self._hold_bridge()
        container_id, options = f"build-{secrets.token_hex(8)}", self._options
        spec = _spec(request, own_network=mode is not NetworkMode.HOST)
        network, hosts = Networking(mode), options.network.hosts if options is not None else ()
        if options is not None:
            from tierce.build.step_limits import limited

            spec = limited(spec, options, insecure=request.insecure, container_id=container_id)
            network = Networking(mode, dns=options.network.dns)
        with (
            _pipe() as (out, out_writer),
            _pipe() as (err, err_writer),
            start(
                spec,
                request.rootfs,
                container_id=container_id,
                root=self._runtime_directory,
                privileges=self._privileges,
                network=network,
                extra_hosts=hosts,
                stdio=Stdio(None, out_writer.fileno(), err_writer.fileno()),
                # with every device allowed, or below a group of the user's, it must not be born where most are not
                spawn=spawn if request.insecure or spec.cgroups_path or not self._server else self._server.spawn,
            ) as container,
        ):
            out_writer.close()
            err_writer.close()
            _relay(container, {out: "stdout", err: "stderr"}, output, cancelled)
            return container.wait()


def _spec(request: SandboxRequest, *, own_network: bool) -> Spec:
    names = capabilities.choose(privileged=True) if request.insecure else capabilities.DEFAULT
    process = Process(
        args=request.args,
        env=request.env,
        cwd=request.cwd,
        user=NamedUser(request.user),
        capabilities=Capabilities(names, names, names),
    )
    return default_spec(
        process,
        hostname=request.hostname,
        own_network=own_network,
        privileged=request.insecure,
        host_devices=host_devices() if request.insecure else (),
        mounts=tuple(runtime_mounts(request.mounts)),
    )


def runtime_mounts(mounts: Iterable[HostMount | MemoryMount]) -> Iterator[Mount]:
    """The mounts of a step in the runtime's words."""
    for mount in mounts:
        match mount:
            case HostMount():
                options = ("rbind", "ro") if mount.read_only else ("rbind",)
                yield Mount(mount.target, "bind", str(mount.source), options)
            case MemoryMount():
                size = () if mount.size is None else (f"size={mount.size}",)
                yield Mount(mount.target, "tmpfs", "tmpfs", ("nosuid", "nodev", *size))
            case _:
                assert_never(mount)


def _relay(
    container: Container, streams: dict[int, Stream], output: Callable[[Stream, bytes], None], cancelled: Event
) -> None:
    """Pass output on until the process and all that kept its output open have ended."""
    poll = select.poll()
    for fd in (*streams, container.fileno()):
        poll.register(fd, select.POLLIN)
    left = set(streams)
    while left:
        for fd, _ in poll.poll(_POLL_MS):
            data = os.read(fd, _BLOCK) if fd in left else b""
            if data:
                output(streams[fd], data)
            else:
                poll.unregister(fd)
                left.discard(fd)
        if cancelled.is_set():
            container.kill()


@contextmanager
def _pipe() -> Iterator[tuple[int, BinaryIO]]:
    """Both ends. The writing end may be closed before, which as a file object is safe to do twice."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        with open(writer, "wb", buffering=0) as file:
            yield reader, file
    finally:
        os.close(reader)
