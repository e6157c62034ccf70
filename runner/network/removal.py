"""A bridge that nobody uses any more is removed beside whatever its last container has yet to do.

The kernel takes forty milliseconds for it, in which it waits. So a bare interpreter asks for it,
which also holds the lock of the runtime directory until it has been done: whoever wants a bridge
next waits for that lock.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from image.paths import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LOCK: Final = 3
_PROGRAM: Final = """
import _socket, posix, sys
route = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
route.send(bytes.fromhex(sys.argv[1]))
route.recv(4096)
for path in sys.argv[2:]:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
"""
_running: Final[list[int]] = []


def remove_beside(request: bytes, files: Sequence[Path], lock: int) -> bool:
    """Send the rtnetlink request that deletes a link, then unlink the files; False when no process can be had.

    When it is killed on its way the files are there, and the link is removed by whoever brings the
    network up or cleans up next.
    """
    _bury()
    interpreter = os.path.realpath(sys.executable)
    words = [interpreter, "-I", "-S", "-c", _PROGRAM, request.hex(), *map(str, files)]
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    try:
        high = os.dup(lock)  # never 3 itself, whose close-on-exec would stay
        try:
            actions = [*null, (os.POSIX_SPAWN_DUP2, high, _LOCK)]
            _running.append(os.posix_spawn(interpreter, words, {}, file_actions=actions, setsid=True, setsigmask=()))
        finally:
            os.close(high)
    except OSError:
        return False
    return True


def _bury() -> None:
    """Those that have ended. The last one is left to the end of this process."""
    for pid in list(_running):
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _running.remove(pid)
