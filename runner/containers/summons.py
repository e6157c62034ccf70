"""A monitor's start, as the command sees it: the process is spawned before it is known for which container.

An interpreter with all that starts a container takes as long to get ready as a command does to
find out what to run, and there is a processor for each.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from image.paths import Path
from runner.containers import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from types import TracebackType
    from typing import Final, Self

STARTER: Final = 3
"""The monitor's descriptor of its first client."""
_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from runner.containers.monitor import main; main()"


class Summoned:
    """A monitor without a container. As a context manager it ends with the block, unless it got one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: socket.socket | None = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def watch(self, store_root: Path, root: Path, container_id: str, *, attached: bool) -> socket.socket:
        """Start this container: the first client's socket."""
        assert self._connection is not None
        connection, self._connection = self._connection, None
        words = (str(store_root), str(root), container_id, "1" if attached else "")
        with suppress(OSError):  # it may have died, which who reads from it sees
            connection.sendall(wire.frame(wire.BEGIN, os.fsencode("\0".join(words))))
        return connection


def summon() -> Summoned:
    """A monitor that gets ready. For an ordinary user, once this process is in the user namespace."""
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    interpreter = os.path.realpath(sys.executable)
    packages = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    with theirs:
        high = os.dup(theirs.fileno())  # never 3 itself, whose close-on-exec would stay
        try:
            os.posix_spawn(
                interpreter, [interpreter, "-I", "-S", "-c", _PROGRAM, packages], dict(os.environ),
                file_actions=[*null, (os.POSIX_SPAWN_DUP2, high, STARTER)], setsid=True, setsigmask=(),
            )  # fmt: skip
        finally:
            os.close(high)
    return Summoned(ours)
