"""Whether somebody holds a file locked, asked without getting in anybody's way.

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
