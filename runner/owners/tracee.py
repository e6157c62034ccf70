"""Memory and paths of the process whose call is answered.

The supervisor has the container's root as its own and the outer /proc as its working
directory: an absolute path works as it is, every other one begins below ``PID/cwd`` or
``PID/fd/N``. A process that has changed its root is followed by openat2 from ``PID/root``.
"""

from __future__ import annotations

import errno
import os
from struct import pack
from typing import Final

from store.linux import memory, paths

AT_FDCWD: Final = 0xFFFFFF9C
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
_PAGE: Final = 4096
_FIRST_READ: Final = 200
"""Most paths are shorter, and bytes cost."""
_SELF: Final = b"/proc/self"


def read_string(pid: int, address: int) -> bytes:
    """A C string of at most one page. Never reads across a page that may not be there."""
    if not address:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    found = b""
    while len(found) < _PAGE:
        here = address + len(found)
        piece = memory.read_memory(pid, here, min(_PAGE - here % _PAGE, _PAGE if found else _FIRST_READ))
        end = piece.find(b"\0")
        if end >= 0:
            return found + piece[:end]
        found += piece
    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def write_ids(pid: int, address: int, ids: tuple[int, ...]) -> None:
    memory.write_memory(pid, address, pack(f"={len(ids)}I", *ids))


def descriptor(pid: int, fd: int) -> bytes:
    """A path of an open file; its own directory for AT_FDCWD."""
    fd &= 0xFFFFFFFF
    return b"%d/cwd" % pid if fd == AT_FDCWD else b"%d/fd/%d" % (pid, fd)


class Paths:
    """Paths of calls. Holds a descriptor for the call at hand, when it needs one."""

    def __init__(self) -> None:
        self._held = -1

    def at(self, pid: int, directory: int, address: int) -> bytes:
        """The path of a call as the supervisor must say it; b"" for an empty one. Raises OSError."""
        path = read_string(pid, address)
        if path.startswith(b"/"):
            return self._absolute(pid, path)
        return b"%b/%b" % (descriptor(pid, directory), path) if path else b""

    def _absolute(self, pid: int, path: bytes) -> bytes:
        if path.startswith(_SELF) and path[len(_SELF) :][:1] in (b"", b"/"):
            return b"%d%b" % (pid, path[len(_SELF) :])
        if os.readlink(b"%d/root" % pid) == b"/":
            return path
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        above, name = os.path.split(path.rstrip(b"/") or b"/")
        root = os.open(b"%d/root" % pid, paths.O_PATH | os.O_CLOEXEC)
        try:
            self._held = paths.openat2(root, above.lstrip(b"/") or b".", paths.O_PATH, 0, paths.RESOLVE_IN_ROOT)
        finally:
            os.close(root)
        return b"self/fd/%d/%b" % (self._held, name or b".")


def umask(pid: int) -> int:
    with open(b"%d/status" % pid, "rb") as status:
        return next((int(line[6:], 8) for line in status if line.startswith(b"Umask:")), 0o022)
