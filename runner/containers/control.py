"""What is done to containers that exist: start, stop, kill, wait. Each through the container's monitor."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from image.errors import Conflict, ContainerNotFound
from image.paths import Path
from image.value import replace
from runner.containers import policy as policies
from runner.containers import wire
from runner.containers.events import tell
from runner.containers.records import Record, Records
from runner.containers.summons import Summoned, summon

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_SETTLE_S = 30.0


class Control:
    """Over the containers of a store whose running ones are in the runtime directory ``root``."""

    def __init__(self, records: Records, root: Path) -> None:
        self.records = records
        self.root = root

    def start(self, record: Record, *, attached: bool, monitor: Summoned | None = None) -> socket.socket:
        """Give it a monitor, perhaps one that waits already: the socket to follow. Raises Conflict when it runs."""
        if record.state.is_running or record.state.status == "restarting":
            raise Conflict(f"container {record.name} is already running")
        self.settle(record)
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if attached:
            self.tell(record, "attach")
        return (monitor or summon()).watch(self.records.store.root, self.root, record.id, attached=attached)

    def tell(self, record: Record, action: str, **more: str) -> None:
        """An event of the container, for who follows them."""
        tell(self.records.journal, record, action, more)

    def connect(self, record: Record) -> socket.socket:
        """To its monitor. Raises ContainerNotFound when there is none to talk to."""
        waiting = record.state.status == "restarting"
        return wire.connect(self.records.directory(record.id) if waiting else self.running_directory(record))

    def kill(self, record: Record, number: int) -> None:
        """A signal for its first process. KILL ends all, and counts as a stop. Raises Conflict when it does not run."""
        if not record.state.is_running:
            raise Conflict(f"cannot kill container: {record.name}: container {record.id} is not running")
        if number == signal.SIGKILL and record.state.status == "paused":
            self.unpause(record)
        self.tell(record, "kill", signal=str(number))
        try:
            with self.connect(record) as connection:
                ends = number in (signal.SIGKILL, _stop_number(record))
                message = wire.frame(wire.WATCH) + (wire.frame(wire.STOP) if ends else b"")
                connection.sendall(message + wire.frame(wire.SIGNAL, str(number).encode()))
                if number == signal.SIGKILL:
                    _ended_within(connection, _SETTLE_S)
        except ContainerNotFound:
            now = self.records.get(record.id)
            if number == signal.SIGKILL and now.state != record.state:  # it ended, and starts again perhaps
                self.stop(now, timeout_s=0)
                return
            _signal_process(record, number)
        if number == signal.SIGKILL:
            self.settle(record)

    def stop(self, record: Record, *, timeout_s: int | None, signal_name: str = "") -> None:
        """Ask it to end, wait, and kill it. ``timeout_s`` None is the container's own; negative waits for ever."""
        if record.state.status == "restarting":
            with suppress(ContainerNotFound), self.connect(record) as connection:
                connection.sendall(wire.frame(wire.STOP))
        if not record.state.is_running:
            if (now := self._next_state(record)) is not None:
                self.stop(now, timeout_s=timeout_s, signal_name=signal_name)
            elif record.state.status == "restarting":
                self.settle(record)
            return
        if record.state.status == "paused":
            self.unpause(record)
        policy = record.made.policy
        number = policies.signal_number(signal_name) if signal_name else _stop_number(record)
        own = policies.DEFAULT_STOP_TIMEOUT_S if policy.stop_timeout_s is None else policy.stop_timeout_s
        limit = own if timeout_s is None else timeout_s
        self.tell(record, "kill", signal=str(number))
        try:
            with self.connect(record) as connection:
                words = (wire.frame(wire.WATCH), wire.frame(wire.STOP), wire.frame(wire.SIGNAL, str(number).encode()))
                connection.sendall(b"".join(words))
                if _ended_within(connection, limit if limit >= 0 else None) is None:
                    connection.sendall(wire.frame(wire.SIGNAL, b"9"))
                    _ended_within(connection, _SETTLE_S)
        except ContainerNotFound:
            if (now := self.records.get(record.id)).state != record.state:  # it ended, and starts again perhaps
                self.stop(now, timeout_s=timeout_s, signal_name=signal_name)
                return
            _signal_process(record, number)
            if not self._gone_within(record, limit if limit >= 0 else 1e9):
                _signal_process(record, signal.SIGKILL)
        self.settle(record)
        self.tell(record, "stop")

    def _next_state(self, record: Record) -> Record | None:
        """Of one that has just ended and may start again: how it goes on. None when it does not."""
        deadline = time.monotonic() + _SETTLE_S
        while record.made.policy.restart != "no" and self.records.is_watched(record.id):
            now = self.records.get(record.id)
            if now.state != record.state:
                return now
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        return None

    def wait(self, record: Record) -> int:
        """Until it does not run: its exit code."""
        if record.state.is_running or record.state.status == "restarting":
            try:
                with self.connect(record) as connection:
                    connection.sendall(wire.frame(wire.WATCH))
                    code = _ended_within(connection, None)
                    if code:
                        return int(code)
                self._gone_within(record, _SETTLE_S)
            except ContainerNotFound:
                self._gone_within(record, 1e9)
            with suppress(ContainerNotFound):
                return self.records.get(record.id).state.code
            return 137
        return record.state.code

    def pause(self, record: Record) -> None:
        """Freeze all its processes. Raises Conflict unless it runs."""
        if record.state.status != "running":
            raise Conflict(
                f"container {record.id} is {'already paused' if record.state.status == 'paused' else 'not running'}"
            )
        from runner.containers.freezer import freeze

        freeze(self, record)
        self.records.change(record, replace(record.state, status="paused"))

    def unpause(self, record: Record) -> None:
        """Raises Conflict unless it is paused."""
        if record.state.status != "paused":
            raise Conflict(f"container {record.id} is not paused")
        from runner.runtime.freezer import thaw

        thaw(self.groups(record))
        self.records.change(record, replace(record.state, status="running"))

    def groups(self, record: Record) -> tuple[str, ...]:
        """The control groups that it has now."""
        from runner.containers.groups import remembered
        from runner.containers.members import groups_of
        from runner.runtime.privileges import probe

        path = record.made.options.cgroups_path(record.id) or remembered(self.running_directory(record))
        return groups_of(probe().cgroups, record.id, path)

    def running_directory(self, record: Record) -> Path:
        """Its own below the runtime directory, while it runs."""
        return self.root / "containers" / record.id

    def movable(self, record: Record) -> str:
        """Where groups that a running container lacks can be made for it. Raises NotPermitted."""
        from runner.containers.groups import choose
        from runner.containers.members import members, parent
        from runner.runtime.privileges import probe

        privileges, path = probe(), record.made.options.cgroups_path(record.id)
        if privileges.initial_user_namespace:
            return path
        watcher = parent(record.state.pid)
        watching = [watcher, parent(watcher)]  # the monitor looks at the groups when all others have ended
        return choose(            privileges, self.running_directory(record), record.id,
            [*members(record.state.pid, self.groups(record)), *watching], path,
        )  # fmt: skip

    def settle(self, record: Record) -> None:
        """Until the monitor has given everything back. Raises Conflict when that takes too long."""
        if not self._gone_within(record, _SETTLE_S):
            raise Conflict(f"container {record.name} does not end: its monitor is busy")

    def _gone_within(self, record: Record, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.records.is_watched(record.id):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def _stop_number(record: Record) -> int:
    return policies.signal_number(policies.stop_signal(record.made.policy, record.made.config))


def _ended_within(connection: socket.socket, seconds: float | None) -> bytes | None:
    """The exit code as the monitor says it, nothing when the monitor is gone; None when the time is up."""
    frames = wire.Frames()
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        connection.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        try:
            data = connection.recv(wire.CHUNK)
        except TimeoutError:
            return None
        except OSError:
            return b""
        for kind, body in frames.feed(data):
            if kind == wire.ENDED:
                return body
        if not data:
            return b""


def _signal_process(record: Record, number: int) -> None:
    """For a container in the foreground, which the command itself watches."""
    try:
        fd = os.pidfd_open(record.state.pid)
    except OSError:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)
