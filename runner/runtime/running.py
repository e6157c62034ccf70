"""The launcher's side of a process that ``child`` starts: see it through, hold on to it.

The process that calls this may have threads: it never forks. ``spawn`` gives it a
bare interpreter; it sends this the plan over a socket, attaches control groups and network to the new process by
its pid while the process sets itself up, and lets it go. When the launcher is killed, the
socket closes and the process is killed with it, unless it was started detached.
"""

from __future__ import annotations

import _socket
import fcntl
import marshal
import os
import sys

from image.bare import signals, suppress
from image.errors import CommandNotStarted, InvalidInput, KernelError, NotPermitted, TierceError
from runner.runtime import cgroup
from runner.runtime.operations import Operation
from store.linux import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Final, Protocol, Self

    from runner.runtime.spawn import Watcher

    class Network(Protocol):
        """What joins a container to a network; see ``runner.network.modes``."""

        @property
        def requests(self) -> Sequence[bytes]:
            """rtnetlink requests for inside the container."""

        def attach(self, pid: int) -> None:
            """Join the network namespace of the process. Raises TierceError."""

    class Supervision(Protocol):
        """A process that answers calls of the container's; see ``runner.owners``."""

        @property
        def pid(self) -> int: ...

        def end(self) -> None:
            """Wait for it, once the container has ended."""


_ONE_DESCRIPTOR: Final = 24
"""Bytes of control data that carry one descriptor."""


class Running:
    """A started process. Close it, or leave its ``with`` block: then nothing of it is left.

    One that was started detached lives on: closing only lets go of it, once it has started.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.pid = 0
        self.detached = watcher.detached
        self.reaped = watcher.reaped
        self._started = False
        self.console: int | None = None
        self.warnings: list[str] = []
        self._control = watcher.taken().control
        self._watcher = watcher.pid
        self._groups = cgroup.ControlGroups(())
        self._pidfd = -1
        self._code: int | None = None
        self._supervision: Supervision | None = None
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when the container has ended: for poll and select."""
        return self._control.fileno()

    @property
    def watcher(self) -> int:
        """The process that sees the end first, a child of this one; 0 when this is closed."""
        return self._watcher

    @property
    def supervisor(self) -> int:
        """The pid of what ``supervise`` was told of; 0 for none."""
        return self._supervision.pid if self._supervision is not None else 0

    @property
    def pidfd(self) -> int:
        """Of the process, as long as this is not closed."""
        return self._pidfd

    @property
    def groups(self) -> tuple[str, ...]:
        """The directories of its control groups."""
        return self._groups.paths

    def wait(self) -> int:
        """Until the end: its exit code, or 128 + the signal that killed it."""
        while self._code is None:
            event = self._next_event()
            if event is None:  # the watcher was killed, and the kernel killed the container with it
                self._code = 128 + signals.SIGKILL
            elif event[0] == "exited":
                code = os.waitstatus_to_exitcode(int(str(event[1])))
                self._code = code if code >= 0 else 128 - code
        return self._code

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel has killed one of its processes for want of memory; asked before ``close``."""
        return self._groups.oom_killed()

    def kill(self, number: int = signals.SIGKILL) -> None:
        """Send a signal to pid 1 of the container; nothing happens when it has ended.

        As for every pid 1, a signal that it does not handle is ignored, except KILL and STOP.
        KILL ends every process of its pid namespace.
        """
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd, number)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; the foreground process gets WINCH."""
        if self.console is not None:
            from struct import pack

            fcntl.ioctl(self.console, descriptors.TIOCSWINSZ, pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Kill the process if it lives, and remove its control groups. Idempotent."""
        if self._watcher:
            kept = self.detached and self._started
            if not kept:
                self.kill()
                if self.pid == 0 or self._code is None:
                    with suppress(OSError):
                        self._control.shutdown(_socket.SHUT_RDWR)  # the watcher sees it and kills
            if not (kept and self.reaped):
                os.waitpid(self._watcher, 0)
            self._watcher = 0
            if self._supervision is not None and not kept:
                self._supervision.end()
            self._code = 128 + signals.SIGKILL if self._code is None else self._code
            self._control.close()
            for fd in (self._pidfd, self.console):
                if fd is not None and fd >= 0:
                    os.close(fd)
            self._pidfd, self.console = -1, None
            if not kept:
                self._groups.remove()

    # --- the start --------------------------------------------------------------------------

    def hold(self, groups: cgroup.ControlGroups) -> None:
        """From here on these groups end with the container."""
        self._groups = groups
        self.warnings += groups.warnings
        groups.attach_watcher(self._watcher)

    def supervise(self, supervision: Supervision) -> None:
        """From here on its end is waited for with the container's."""
        self._supervision = supervision

    def begin(
        self,
        operations: Sequence[Operation],
        *,
        attach: Callable[[int], None] | None = None,
        id_maps: tuple[str, str] | None = None,
        hooks: Callable[[int], bytes] | None = None,
        listener: Callable[[int, int], None] | None = None,
    ) -> None:
        """Send the orders and see the process through its start.

        ``id_maps`` are written for a process in a new user namespace, those of users and of
        groups, before it goes on from ``become_root``. ``attach`` gets its pid before it goes on from ``await_parent``, ``hooks`` at
        ``await_hooks``, and returns the state that the container's own hooks read; ``listener`` gets the pid and the descriptor of a seccomp filter that
        notifies, which it must not keep. What they raise ends the start. Raises TierceError.
        """
        body = marshal.dumps([operation.encode() for operation in operations])
        self._send(len(body).to_bytes(8, "little") + body)
        command = next(step for step in operations if step.name == "execute").arguments[0]
        while not self._started:
            event = self._next_event()
            match event:
                case ("pid", int(pid)):
                    self.pid = pid
                    self._attach(pid, attach, id_maps)
                case ("console",):
                    self.console = self._take_descriptor()
                case ("hooks",):
                    state = hooks(self.pid) if hooks is not None else b""
                    self._send(len(state).to_bytes(8, "little") + state)
                case ("listener",):
                    self._pass_on(listener)
                case ("started", tuple(warnings)):
                    self.warnings += [str(warning) for warning in warnings]
                    self._started = True
                case ("failed", kind, stage, syscall, errno, text):
                    raise _start_error(command, (str(kind), str(stage), str(syscall)), int(str(errno)), str(text))
                case _:
                    raise TierceError("container start: the process that sets the container up died")

    def _attach(self, pid: int, attach: Callable[[int], None] | None, id_maps: tuple[str, str] | None) -> None:
        """Ids, control groups and network, then the word to go on.

        A process that has failed meanwhile says why in its next event, which tells more than
        that it cannot be attached to.
        """
        try:
            self._pidfd = os.pidfd_open(pid)
            if id_maps is not None:
                _map_ids(pid, id_maps)
                self._control.sendall(b"m")
            self._groups.attach(pid)
            if attach is not None:
                attach(pid)
            self._control.sendall(b"g")
        except (TierceError, OSError) as error:
            if self._pidfd >= 0 and not descriptors.poll({self._pidfd: descriptors.POLLIN}, 0):
                raise _as_tierce_error(error) from error

    def _pass_on(self, listener: Callable[[int, int], None] | None) -> None:
        fd = self._take_descriptor()
        try:
            if listener is not None and fd is not None:
                listener(self.pid, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def _take_descriptor(self) -> int | None:
        fd, self._descriptor = self._descriptor, None
        return fd

    def _send(self, data: bytes) -> None:
        try:
            self._control.sendall(data)
        except OSError as error:
            raise TierceError("container start: the process that sets the container up died") from error

    def _next_event(self) -> tuple[object, ...] | None:
        """The next event of ``child``; None at the end. Keeps a descriptor that comes with it."""
        try:
            header, ancillary, _, _ = self._control.recvmsg(4, _ONE_DESCRIPTOR, _socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return None
        for level, kind, data in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self._descriptor = int.from_bytes(data[:4], sys.byteorder)
        header += self._receive(4 - len(header)) if header else b""
        if len(header) < 4:
            return None
        body = self._receive(int.from_bytes(header, "little"))
        return tuple(marshal.loads(body)) if body else None  # noqa: S302  # from our own child, before exec

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._control.recv(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return data


def _map_ids(pid: int, id_maps: tuple[str, str]) -> None:
    for name, lines in zip(("uid_map", "gid_map"), id_maps, strict=True):
        try:
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(lines)
        except OSError as error:
            shown = lines.replace("\n", ", ")
            raise NotPermitted(f"cannot map ids {shown}: {os.strerror(error.errno or 0).lower()}") from error


def _as_tierce_error(error: TierceError | OSError) -> TierceError:
    return error if isinstance(error, TierceError) else TierceError(f"container start: {error}")


def _start_error(command: object, what: tuple[str, str, str], errno: int, text: str) -> TierceError:
    kind, stage, syscall = what
    match kind:
        case "kernel":
            return KernelError(stage, syscall, errno, text)
        case "user":
            return InvalidInput(text)
        case "command":
            words = command if isinstance(command, tuple) else ()
            name = words[0] if words and isinstance(words[0], bytes) else b""
            return CommandNotStarted(os.fsdecode(name), text, errno)
        case _:
            return TierceError(f"container start: {stage}: {text}")
