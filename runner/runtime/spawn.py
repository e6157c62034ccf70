"""The process that will become a container, or enter one: an interpreter of its own, waiting for orders.

It needs longer to start than everything up to sending the orders. So the command line spawns it
before it imports what plans a container, and this module imports only what every interpreter has.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from image.errors import NotPermitted
from image.value import dataclass
from store.linux import mounts, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Final, Self

    from runner.runtime.spec import DeviceRule

_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from runner.runtime.{} import main; main()"
_PACKAGES: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_ABOVE_FIXED: Final = 10
"""Descriptors are first moved here, so that giving one its final number closes no other."""


@dataclass(frozen=True, slots=True)
class Stdio:
    """The process's descriptors 0, 1 and 2, then ``extra`` as 3 and up; None is /dev/null. They stay the caller's."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    extra: tuple[int, ...] = ()


class Watcher:
    """The spawned process. As a context manager it ends with the block, unless it was taken over."""

    def __init__(
        self,
        control: _socket.socket,
        pid: int,
        *,
        detached: bool = False,
        reaped: bool = False,
        devices: tuple[DeviceRule, ...] = (),
        stdio: Stdio | None = None,
    ) -> None:
        """``stdio`` is what it was given, ``devices`` are the rules of the v1 group that it was born in, and its container will be."""
        self.control = control
        self.pid = pid
        self.detached = detached
        self.reaped = reaped
        self.devices = devices
        self.stdio = stdio
        self._taken = False

    def taken(self) -> Self:
        """From here on its end is somebody else's business."""
        self._taken = True
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._taken:
            self._taken = True
            self.control.close()  # it ends when it hears that there are no orders
            os.waitpid(self.pid, 0)


def spawn(stdio: Stdio, lease_fd: int | None = None, *, detached: bool = False, reaped: bool = False) -> Watcher:
    """A bare interpreter on ``child``, in a session of its own so that no key of the terminal reaches it.

    It holds ``lease_fd`` open. What it starts ``detached`` is its own to wait for where it is ``reaped``: until
    then a pid namespace does not end, whose first process has. Raises NotPermitted.
    """
    ours, theirs = control_pair()
    try:
        wanted = (stdio.stdin, stdio.stdout, stdio.stderr, theirs.fileno(), lease_fd, *stdio.extra)
        pid = start_interpreter("child", wanted, str(len(stdio.extra)))
    except NotPermitted:
        ours.close()
        raise
    finally:
        theirs.close()
    return Watcher(ours, pid, detached=detached, reaped=reaped, stdio=stdio)


def control_pair() -> tuple[_socket.socket, _socket.socket]:
    """Our end and the process's."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)


def start_interpreter(module: str, descriptors: Sequence[int | None], *words: str) -> int:
    """The pid of a bare interpreter on ``main`` of a module beside this, with these as its descriptors from 0 on.

    The order is that of ``child.CONTROL`` and ``child.LEASE``; None is /dev/null. Raises NotPermitted.
    """
    interpreter = os.path.realpath(sys.executable)  # a version manager's shim costs a hundred milliseconds
    moved: list[int] = []
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    above = _ABOVE_FIXED + len(descriptors)
    try:
        for number, fd in enumerate(descriptors):
            if fd is None:
                actions.append((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0))
            else:
                moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above))
                actions.append((os.POSIX_SPAWN_DUP2, moved[-1], number))
        program = _readonly_program(interpreter, above, moved)
        argv = [interpreter, "-I", "-S", "-c", _PROGRAM.format(module), _PACKAGES, *words]
        return os.posix_spawn(program, argv, {}, file_actions=actions, setsid=True, setsigmask=())
    except OSError as error:
        raise NotPermitted(f"cannot start the container's process: {os.strerror(error.errno or 0).lower()}") from error
    finally:
        for fd in moved:
            os.close(fd)


def _readonly_program(interpreter: str, above: int, held: list[int]) -> str:
    """A name of the interpreter on a read-only mount that is in no namespace; the descriptor goes to ``held``.

    An image whose program is a link to /proc/self/exe executes the interpreter itself, which
    any process of the container could then write to through /proc/PID/exe (CVE-2019-5736).
    Through this mount nobody can, and nobody can remount what is in no namespace. A user
    without the right to mount gains and loses nothing: what the container could write is theirs.
    """
    try:
        tree = mounts.open_tree(paths.AT_FDCWD, os.fsencode(interpreter), mounts.OPEN_TREE_CLONE)
    except OSError:
        return interpreter
    try:
        mounts.mount_setattr(tree, set_=mounts.MOUNT_ATTR_RDONLY)
        held.append(fcntl.fcntl(tree, fcntl.F_DUPFD_CLOEXEC, above))
    finally:
        os.close(tree)
    return f"/proc/self/fd/{held[-1]}"
