"""The process that is there while a container runs: it carries its output, its input and its names.

It is the monitor, as a bare interpreter: of all that starting a container needs nothing is in its
memory. When the container has ended it writes down how, and becomes ``monitor`` again. When it is
killed the kernel kills the container with it, and the next command writes that down (``records``).

Imports only what a bare interpreter has.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` without its enumerations
import fcntl
import marshal
import posix
import select
import sys
import termios
import time
from struct import pack

from image.value import replace
from runner.containers import ending, wire
from runner.containers.clients import Client, Clients
from runner.containers.health_timer import HealthTimer
from runner.containers.kept import Kept, become
from runner.containers.log import LogWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runner.network.resolver import Resolver

_KILLED = 9


def main() -> NoReturn:
    """Arguments: packages, the descriptor of what ``become`` passed on."""
    kept = Keeper(Kept.received(int(sys.argv[2]))).keep()
    ending.write(kept.store_root, kept.id, ending.Ending(kept.code, kept.finished_s, kept.stopped))
    become("runner.containers.monitor", kept)


class Keeper:
    """Of one life of a container."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._clients = Clients.of(kept.clients, kept.listener)
        self._outputs = dict(kept.outputs)
        self._input = kept.input
        self._pending = b""
        self._close_input = False
        self._closed: set[int] = set()
        self._stopped = kept.stopped
        self._log = LogWriter(kept.log[0], max_size=kept.log[1], max_file=kept.log[2]) if kept.log else None
        self._resolver = _resolver(kept)
        self._health = HealthTimer(kept) if kept.pauses_s else None

    def keep(self) -> Kept:
        """To the end of this life, and all that the container has written."""
        while not self._step():
            pass
        if self._health is not None:
            self._health.end()
        if self._resolver is not None:
            self._closed |= set(self._resolver.descriptors)
            self._resolver.close()
        self._take_the_rest()
        if self._log is not None:
            self._log.close()
        code = _exit_code(self._kept.control)
        posix.waitpid(self._kept.watcher, 0)
        return replace(
            self._kept, code=code, finished_s=time.time(), stopped=self._stopped, clients=self._clients.states,
            held=tuple(set(self._kept.held) - self._closed),
        )  # fmt: skip

    # --- the loop -------------------------------------------------------------------------

    def _step(self) -> bool:
        """Do what can be done now, or wait; True when the container has ended."""
        events = self._poll()
        for fd in [fd for fd in self._outputs if fd in events]:
            self._take_output(fd)
        if self._resolver is not None and self._resolver.fileno() in events:
            self._resolver.serve()
        if self._pending and self._input in events:
            self._give_input()
        self._clients.serve(events, self._obey)
        if self._health is not None:
            self._health.step(events)
        return self._kept.control in events

    def _poll(self) -> dict[int, int]:
        wanted = self._clients.interests(hear=not self._pending)
        wanted[self._kept.control] = select.POLLIN
        if not self._clients.hold_up:
            wanted |= dict.fromkeys(self._outputs, select.POLLIN)
        if self._resolver is not None:
            wanted[self._resolver.fileno()] = select.POLLIN
        if self._pending:  # a terminal is both an output and where input goes
            wanted[self._input] = wanted.get(self._input, 0) | select.POLLOUT
        if self._health is not None:
            wanted |= dict.fromkeys(self._health.descriptors, select.POLLIN)
        poller = select.poll()
        for fd, mask in wanted.items():
            poller.register(fd, mask)
        return dict(poller.poll(self._health.due_ms() if self._health is not None else None))

    # --- output ---------------------------------------------------------------------------

    def _take_output(self, fd: int) -> bool:
        """One piece of output to the log and everybody who listens; False when there is none."""
        try:
            data = posix.read(fd, wire.CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: every program has closed the terminal
            data = b""
        if not data:
            del self._outputs[fd]
            if fd != self._kept.console:
                self._close(fd)
            return False
        stream = self._outputs[fd]
        if self._log is not None:
            self._log.write(stream, data)
        self._clients.show(wire.OUT if stream == b"stdout" else wire.ERR, data)
        return True

    def _take_the_rest(self) -> None:
        """What lies in the pipes of a container that has ended; a program elsewhere may hold them open."""
        for fd in list(self._outputs):
            posix.set_blocking(fd, False)
            while fd in self._outputs and self._take_output(fd):
                pass

    def _close(self, fd: int) -> None:
        posix.close(fd)
        self._closed.add(fd)

    # --- input, and what clients want -----------------------------------------------------

    def _obey(self, client: Client, kind: bytes, body: bytes) -> None:
        if kind == wire.ATTACH:
            client.attached = True
        elif kind == wire.STOP:
            self._stopped = True
        elif kind == wire.SIGNAL:
            self._kill(int(body))
        elif kind == wire.RESIZE:
            self._resize(body)
        elif kind == wire.INPUT:
            self._pending += body
            self._close_input = self._close_input or not body
            self._give_input()

    def _kill(self, number: int) -> None:
        try:  # noqa: SIM105  # no contextlib here
            _signal.pidfd_send_signal(self._kept.pidfd, number)
        except OSError:
            pass  # it has ended

    def _resize(self, size: bytes) -> None:
        rows, _, columns = size.partition(b" ")
        try:
            if self._kept.console >= 0:
                fcntl.ioctl(self._kept.console, termios.TIOCSWINSZ, pack("HHHH", int(rows), int(columns), 0, 0))
        except OSError:
            pass

    def _give_input(self) -> None:
        if self._input < 0:
            self._pending = b""
            return
        try:
            while self._pending:
                self._pending = self._pending[posix.write(self._input, self._pending) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE: nobody reads it
            self._pending = b""
        if self._close_input and self._input != self._kept.console:
            self._close(self._input)
            self._input = -1


def _resolver(kept: Kept) -> Resolver | None:
    if kept.resolver is None:
        return None
    from runner.network.resolver import Resolver  # only containers on a bridge need it

    directory, datagrams, listener = kept.resolver
    return Resolver(directory, [datagrams, listener])


def _exit_code(control: int) -> int:
    """What the watcher said last, or that it was killed, and the container with it; see ``runtime.child``."""
    data = b""
    while True:
        try:
            piece = posix.read(control, wire.CHUNK)
        except OSError:
            piece = b""
        if not piece:
            break
        data += piece
    if len(data) < 4:
        return 128 + _KILLED
    kind, status = marshal.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])  # noqa: S302  # from our own child
    code = posix.waitstatus_to_exitcode(status) if kind == "exited" else -_KILLED
    return code if code >= 0 else 128 - code
