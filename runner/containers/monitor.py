"""The process that watches over one container: it starts it, keeps its output, and sees its end.

The command line spawns it with one socket, on which the container's first client already
listens; others connect to a socket in the container's directory. It writes the log, hands
output and input on, asks after the container's health, records how it ended before anybody
is told, and starts it again where the policy says so. When it is killed the kernel kills the
container with it, and the next command writes that down (``records``).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from image.errors import ContainerNotFound, TierceError
from image.value import replace
from runner.containers import policy as policies
from runner.containers import wire
from runner.containers.begin import begin
from runner.containers.log import LogWriter
from runner.containers.probe import HealthProbe
from runner.containers.records import Record, Records, State
from runner.containers.start import CLI_FAILED, exit_status
from runner.runtime import user_namespace
from runner.runtime.privileges import probe
from store.store import Store

if TYPE_CHECKING:
    from runner.containers.start import Container

STARTER: Final = 3
"""The descriptor of the first client."""
_FIRST_DELAY_S, _LAST_DELAY_S, _STEADY_S = 0.1, 60.0, 10.0
_MOST_WAITING: Final = 1 << 20
"""Bytes that a slow client may leave unread; then it is let go, and the log has the rest."""


class Client:
    """One connection. Never blocks the monitor."""

    def __init__(self, connection: socket.socket, *, patient: bool = False) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.frames = wire.Frames()
        self.attached = False
        self.patient = patient
        """Whether the container waits for it: a foreground command's reader slows the container down."""
        self.waiting = b""

    def send(self, kind: bytes, body: bytes = b"") -> None:
        self.waiting += wire.frame(kind, body)
        self.flush()

    def flush(self) -> None:
        with suppress(BlockingIOError):
            while self.waiting:
                self.waiting = self.waiting[self.connection.send(self.waiting) :]

    @property
    def is_full(self) -> bool:
        return len(self.waiting) > _MOST_WAITING


class Monitor:
    """One container's, for as long as it is to run."""

    def __init__(self, records: Records, record: Record, root: Path, starter: Client) -> None:
        self._records = records
        self._record = record
        self._root = root
        self._clients = [starter]
        self._stopped = False
        self._privileges = probe()
        size, files = policies.log_limits(record.made.policy)
        self._log = (
            LogWriter(records.log(record), max_size=size, max_file=files)
            if record.made.policy.log_driver != "none"
            else None
        )
        self._container: Container | None = None
        self._outputs: dict[int, bytes] = {}
        self._input = -1
        self._pending = b""
        self._close_input = False
        self._listener: socket.socket | None = None

    # --- the container's lives ------------------------------------------------------------

    def run(self) -> None:
        """Until it has ended for good."""
        delay_s, restarts = _FIRST_DELAY_S, 0
        while True:
            began_s = time.monotonic()
            code = self._live(restarts)
            if code is None:
                return
            if time.monotonic() - began_s >= _STEADY_S:
                delay_s = _FIRST_DELAY_S
            self._look_again()
            if self._stopped or not policies.wants_restart(self._record.made.policy.restart, code, restarts):
                return
            self._record = self._records.set(self._record, replace(self._record.state, status="restarting"))
            if not self._wait_for_restart(delay_s):
                self._record = self._records.set(self._record, replace(self._record.state, status="exited"))
                return
            self._look_again()
            delay_s = min(2 * delay_s, _LAST_DELAY_S)
            restarts += 1

    def _look_again(self) -> None:
        """It may have been renamed meanwhile, or have other limits and another policy."""
        with suppress(ContainerNotFound):
            self._record = replace(self._records.unsettled(self._record.id), state=self._record.state)

    def _live(self, restarts: int) -> int | None:
        """One life of the container: its exit code, or None when it could not be started."""
        with ExitStack() as held:
            try:
                begun = held.enter_context(begin(self._records, self._record, self._root, self._privileges))
            except (TierceError, OSError) as error:
                self._failed(error, restarts)
                return None
            self._container, self._outputs, self._input = begun.container, begun.outputs, begun.input
            self._record = self._records.set(
                self._record,
                State(
                    "running", begun.container.pid, started_s=self._records.clock(), restarts=restarts,
                    address=begun.container.address, ports=tuple(map(str, begun.ports)), volumes=begun.volumes,
                ),
            )  # fmt: skip
            self._listener = held.enter_context(wire.listen(begun.directory))
            self._tell(wire.STARTED, json.dumps(list(begun.container.warnings)).encode())
            health = policies.health(self._record.made.policy, self._record.made.config)
            asking = held.enter_context(HealthProbe(health, self._records, self._record)) if health else None
            self._serve(asking)
            code, oom = begun.container.wait(), begun.container.oom_killed
            self._container, self._listener = None, None
        self._ended(code, oom)
        return code

    def _failed(self, error: TierceError | OSError, restarts: int) -> None:
        code = exit_status(error) if isinstance(error, TierceError) else CLI_FAILED
        status = "created" if not self._record.state.started_s else "exited"
        self._record = self._records.set(
            self._record,
            replace(
                self._record.state, status=status, code=code, error=str(error), restarts=restarts,
                finished_s=self._records.clock(),
            ),
        )  # fmt: skip
        self._tell(wire.FAILED, json.dumps([code, str(error)]).encode())

    def _ended(self, code: int, oom: bool) -> None:
        if self._log is not None:
            self._log.flush()
        now = self._records.clock()
        state = replace(
            self._record.state, status="exited", code=code, oom_killed=oom, finished_s=now, pid=0, address="", ports=(),
            stopped=self._stopped,
        )  # fmt: skip
        self._record = self._records.set(self._record, state)
        self._tell(wire.ENDED, str(code).encode())

    def finish(self) -> None:
        """Let everybody have what they are owed, and remove the container where that was asked."""
        if self._log is not None:
            self._log.close()
        if self._record.made.policy.remove:
            from runner.containers.remove import remove

            remove(self._records, self._record, volumes=True)

    def drain(self) -> None:
        """Clients that are slow get the rest, as long as they listen."""
        while waiting := [client for client in self._clients if client.waiting]:
            poller = select.poll()
            for client in waiting:
                poller.register(client.connection, select.POLLOUT)
            poller.poll()
            for client in waiting:
                self._guarded(client, client.flush)

    # --- the loop -------------------------------------------------------------------------

    def _serve(self, asking: HealthProbe | None) -> None:
        container = self._container
        assert container is not None
        ended = False
        while not ended:
            events = self._poll(asking)
            for fd in [fd for fd in self._outputs if fd in events]:
                self._take_output(fd)
            ended = container.fileno() in events
            if container.resolver is not None and container.resolver.fileno() in events:
                container.resolver.serve()
            self._serve_clients(events)
            if asking is not None:
                asking.step(container)
        self._take_the_rest()
        self._close_descriptors()

    def _poll(self, asking: HealthProbe | None) -> dict[int, int]:
        assert self._container is not None
        poller = select.poll()
        poller.register(self._container.fileno(), select.POLLIN)
        if not any(client.patient and client.is_full for client in self._clients):
            for fd in self._outputs:
                poller.register(fd, select.POLLIN)
        if self._listener is not None:
            poller.register(self._listener, select.POLLIN)
        if self._container.resolver is not None:
            poller.register(self._container.resolver.fileno(), select.POLLIN)
        if self._pending:
            masks = select.POLLOUT | (select.POLLIN if self._input in self._outputs else 0)
            poller.register(self._input, masks)
        for client in self._clients:
            wants = select.POLLOUT if client.waiting else 0
            poller.register(client.connection, wants | (0 if self._pending else select.POLLIN))
        timeout = None
        if asking is not None:
            for fd in asking.descriptors:
                poller.register(fd, select.POLLIN)
            timeout = max(0, int(asking.due_s() * 1000) + 1)
        return dict(poller.poll(timeout))

    def _take_output(self, fd: int) -> bool:
        """One piece of output to the log and everybody who listens; False at its end."""
        try:
            data = os.read(fd, wire.CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: every program has closed the terminal
            data = b""
        if not data:
            stream = self._outputs.pop(fd)
            if fd != self._input:
                os.close(fd)
            return bool(stream) and False
        stream = self._outputs[fd]
        if self._log is not None:
            self._log.write(stream, data)
        kind = wire.OUT if stream == b"stdout" else wire.ERR
        for client in list(self._clients):
            if client.attached:
                self._guarded(client, lambda client=client: client.send(kind, data))
                if client.is_full and not client.patient:
                    self._drop(client)
        return True

    def _take_the_rest(self) -> None:
        """What lies in the pipes of a container that has ended; a program elsewhere may hold them open."""
        for fd in list(self._outputs):
            os.set_blocking(fd, False)
            while fd in self._outputs and self._take_output(fd):
                pass

    def _close_descriptors(self) -> None:
        for fd in {*self._outputs, *([self._input] if self._input >= 0 else [])}:
            with suppress(OSError):
                if self._container is None or fd != self._container.console:
                    os.close(fd)
        self._outputs, self._input, self._pending = {}, -1, b""

    def _serve_clients(self, events: dict[int, int]) -> None:
        if self._listener is not None and self._listener.fileno() in events:
            with suppress(OSError):
                self._clients.append(Client(self._listener.accept()[0]))
        if self._pending and self._input in events:
            self._give_input()
        for client in list(self._clients):
            fd = client.connection.fileno()
            if fd in events:
                self._guarded(client, client.flush)
            if fd in events and not self._pending:
                self._hear(client)

    def _hear(self, client: Client) -> None:
        try:
            data = client.connection.recv(wire.CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        for kind, body in client.frames.feed(data):
            self._obey(client, kind, body)

    def _obey(self, client: Client, kind: bytes, body: bytes) -> None:
        container = self._container
        if kind == wire.ATTACH:
            client.attached = True
        elif kind == wire.STOP:
            self._stopped = True
        elif kind == wire.STATE:
            status = "paused" if body == b"paused" else "running"
            self._record = self._records.set(self._record, replace(self._record.state, status=status))
            self._guarded(client, lambda: client.send(wire.STATE, body))
        elif kind == wire.SIGNAL and container is not None:
            container.kill(int(body))
        elif kind == wire.RESIZE and container is not None:
            rows, _, columns = body.partition(b" ")
            with suppress(OSError):
                container.resize(int(rows), int(columns))
        elif kind == wire.INPUT:
            self._pending += body
            self._close_input = self._close_input or not body
            self._give_input()

    def _give_input(self) -> None:
        if self._input < 0:
            self._pending = b""
            return
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._input, self._pending) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE: nobody reads it
            self._pending = b""
        if self._close_input and self._input not in self._outputs:
            os.close(self._input)
            self._input = -1

    def _tell(self, kind: bytes, body: bytes) -> None:
        for client in list(self._clients):
            self._guarded(client, lambda client=client: client.send(kind, body))

    def _guarded(self, client: Client, act: _Act) -> None:
        try:
            act()
        except OSError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            client.waiting = b""
            client.connection.close()

    def _wait_for_restart(self, delay_s: float) -> bool:
        """False when somebody stops it meanwhile."""
        deadline = time.monotonic() + delay_s
        with suppress(OSError), ExitStack() as held:
            listener = held.enter_context(wire.listen(self._records.directory(self._record.id)))
            while (left := deadline - time.monotonic()) > 0 and not self._stopped:
                poller = select.poll()
                poller.register(listener, select.POLLIN)
                for client in self._clients:
                    poller.register(client.connection, select.POLLIN)
                events = dict(poller.poll(max(1, int(left * 1000))))
                self._listener = listener
                self._serve_clients(events)
            self._listener = None
        return not self._stopped


class _Act(Protocol):
    def __call__(self) -> object: ...


def main() -> NoReturn:
    """Arguments: packages, store, runtime directory, container, whether the starter listens to output."""
    store_root, root, container_id, attached = sys.argv[2:6]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    starter = Client(socket.socket(fileno=STARTER), patient=attached == "1")
    starter.attached = attached == "1"
    user_namespace.hold(os.environ)
    code = 0
    try:
        with Store.open(Path(store_root)) as store:
            records = Records(store)
            lock = records.watch(container_id, timeout_s=10)
            monitor = Monitor(records, records.unsettled(container_id), Path(root), starter)
            monitor.run()
            monitor.finish()
            os.close(lock)
            monitor.drain()
    except TierceError as error:
        with suppress(OSError):
            starter.connection.setblocking(True)
            starter.send(wire.FAILED, json.dumps([125, str(error)]).encode())
        code = 1
    os._exit(code)


def spawn(store_root: Path, root: Path, container_id: str, *, attached: bool) -> socket.socket:
    """A monitor for this container: our end of the first client's socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    packages = str(Path(__file__).resolve().parents[2])
    program = "import sys; sys.path.append(sys.argv[1]); from runner.containers.monitor import main; main()"
    interpreter = os.path.realpath(sys.executable)
    arguments = [packages, str(store_root), str(root), container_id, "1" if attached else "0"]
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    with theirs:
        high = os.dup(theirs.fileno())  # never 3 itself, whose close-on-exec would stay
        try:
            os.posix_spawn(
                interpreter, [interpreter, "-I", "-S", "-c", program, *arguments], dict(os.environ),
                file_actions=[*null, (os.POSIX_SPAWN_DUP2, high, STARTER)], setsid=True, setsigmask=(),
            )  # fmt: skip
        finally:
            os.close(high)
    return ours
