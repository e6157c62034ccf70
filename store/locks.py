"""Locked files: whether somebody holds one, asked without getting in anybody's way, and holding one.

Imports only what a bare interpreter has: it serves in processes that are kept small.
"""

from __future__ import annotations

import fcntl
import os


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a process holds the file locked (flock) for itself; False without the file.

    Asked with a shared lock, so that two who ask at once do not take each other for the holder.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


class Alone:
    """Holds the file locked (flock) for this process, waiting for others, as a context manager. Made when absent."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
