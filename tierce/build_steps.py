"""One RUN step: a build's request to a runtime spec, the process, its output."""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Event, Lock
from typing import BinaryIO, Final, assert_never

from builder.ports import HostMount, MemoryMount, SandboxRequest, Stream
from runner.network.modes import Connection, NetworkMode, parse_mode
from runner.runtime import capabilities
from runner.runtime.defaults import default_spec
from runner.runtime.launch import Running, Stdio, launch
from runner.runtime.privileges import probe
from runner.runtime.spec import Capabilities, Mount, NamedUser, Process, Spec
from runner.runtime.state import acquire, runtime_directory

_POLL_MS: Final = 100
_BLOCK: Final = 1 << 16


class StepRunner:
    """Runs the steps of one build; safe to use from several threads. Close it after the last.

    The bridge is removed with its last container, and making one takes longer than all else of
    a step: so a build that used it keeps an address of its own until it is closed.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._runtime_directory = runtime_directory(environ, os.geteuid())
        self._privileges = probe()
        self._lock = Lock()
        self._held = ExitStack()
        self._holds_bridge = False

    def close(self) -> None:
        """Let go of the network."""
        self._held.close()

    def _hold_bridge(self) -> None:
        with self._lock:
            if not self._holds_bridge:
                lease = acquire(self._runtime_directory, f"build-{secrets.token_hex(8)}")
                self._held.callback(lease.release)
                hold = Connection(NetworkMode.BRIDGE, root=self._runtime_directory, lease=lease, hostname="")
                self._held.enter_context(hold)
                self._holds_bridge = True

    def run(self, request: SandboxRequest, output: Callable[[Stream, bytes], None], cancelled: Event) -> int:
        """See ``builder.ports.Sandbox.run``."""
        root, mode = self._runtime_directory, parse_mode(request.network)
        if mode is NetworkMode.BRIDGE:
            self._hold_bridge()
        lease = acquire(root, f"build-{secrets.token_hex(8)}")
        try:
            with (
                Connection(mode, root=root, lease=lease, hostname=request.hostname) as network,
                _pipe() as (out, out_writer),
                _pipe() as (err, err_writer),
                launch(
                    _spec(request, network),
                    request.rootfs,
                    privileges=self._privileges,
                    lease=lease,
                    stdio=Stdio(None, out_writer.fileno(), err_writer.fileno()),
                    network=network,
                ) as running,
            ):
                out_writer.close()
                err_writer.close()
                _relay(running, {out: "stdout", err: "stderr"}, output, cancelled)
                return running.wait()
        finally:
            lease.release()


def _spec(request: SandboxRequest, network: Connection) -> Spec:
    names = capabilities.DEFAULT
    process = Process(
        args=request.args,
        env=request.env,
        cwd=request.cwd,
        user=NamedUser(request.user),
        capabilities=Capabilities(names, names, names),
    )
    mounts = (*network.mounts, *_mounts(request))
    return default_spec(process, hostname=request.hostname, own_network=network.own_namespace, mounts=mounts)


def _mounts(request: SandboxRequest) -> Iterator[Mount]:
    for mount in request.mounts:
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
    running: Running, streams: dict[int, Stream], output: Callable[[Stream, bytes], None], cancelled: Event
) -> None:
    """Pass output on until the process and all that kept its output open have ended."""
    poll = select.poll()
    for fd in (*streams, running.fileno()):
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
            running.kill()


@contextmanager
def _pipe() -> Iterator[tuple[int, BinaryIO]]:
    """Both ends. The writing end may be closed before, which as a file object is safe to do twice."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        with open(writer, "wb", buffering=0) as file:
            yield reader, file
    finally:
        os.close(reader)
