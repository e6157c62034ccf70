"""Which processes of a user are in the user namespace that all of that user's commands share.

    <runtime directory>/user-namespace/lock    byte PID is locked by each process PID that is in it

A namespace lives as long as a process in it, so a command joins that of any process that holds a
lock, and locks a byte itself. Without one it makes a namespace. Container and command then have
one user namespace, which ``exec`` and every look into /proc of a container need: a sibling
namespace has no rights there, though it belongs to the same user.

The locks are fcntl's, because the kernel tells who has one, and drops it with the process: there is
nothing to clean up after a kill or a reboot, and a pid of another pid namespace is not told. The
file itself says where mounts were last tried with success (``mount_probe``), and the whole of it is
locked (flock, which is independent) while a namespace is looked for or made, so that two commands
that start together agree. Whatever a lock says, the kernel lets a process join
only a namespace that its own user has made.

Spec: fcntl(2) "Advisory record locking", setns(2), user_namespaces(7).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from store.linux import processes

_FLOCK: Final = "hhqqi"
"""struct flock: type, whence, start, length, pid."""
_LONGEST: Final = 256
_LAST: Final = 1 << 22
"""Above every pid (PID_MAX_LIMIT)."""


class Holders:
    """The file, open as long as this process is to be found."""

    def __init__(self, root: Path, uid: int) -> None:
        """In the runtime directory ``root``. Raises OSError, also for what is not this user's alone."""
        directory = root / "user-namespace"
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        where = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(where)
            if status.st_uid != uid or status.st_mode & 0o022:
                raise PermissionError(f"{directory} is open to others")
            self._fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=where)
        finally:
            os.close(where)

    def alone(self) -> None:
        """Wait until no other command looks for a namespace or makes one."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def add(self) -> None:
        """Let others find this process, as long as it lives, and look for themselves."""
        fcntl.lockf(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, os.getpid())
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @property
    def tried(self) -> str:
        """What ``remember`` was told last."""
        return os.pread(self._fd, _LONGEST, 0).decode("utf-8", "replace")

    def remember(self, tried: str) -> None:
        with suppress(OSError):  # a full disk: it is tried again
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, tried.encode(), 0)

    def close(self) -> None:
        """This process is not found any more."""
        os.close(self._fd)

    def join(self) -> bool:
        """Move this process, of one thread, into the namespace of one that is found; False without any."""
        return any(self._enter(pid) for pid in self._found())

    def _found(self) -> Iterator[int]:
        """Processes that hold a lock. The kernel tells of one in a range, so what is beside it is asked for."""
        ranges = [(0, _LAST)]
        while ranges:
            first, end = ranges.pop()
            if first < end and (lock := self._locked(first, end)) is not None:
                at, pid = lock
                if pid > 0:  # else a process of another pid namespace
                    yield pid
                ranges += [(first, at), (at + 1, end)]

    def _locked(self, first: int, end: int) -> tuple[int, int] | None:
        """``(byte, pid)`` of a lock from ``first`` to before ``end``."""
        wish = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, first, end - first, 0)
        kind, _, at, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, wish))
        return None if kind == fcntl.F_UNLCK else (at, pid)

    def _enter(self, pid: int) -> bool:
        """False when it has just ended, or may not be looked into."""
        try:
            fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if self._locked(pid, pid + 1) != (pid, pid):  # else the number has become another's meanwhile
                return False
            processes.setns(fd, processes.CLONE_NEWUSER)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
