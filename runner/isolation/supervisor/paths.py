"""Paths of a step in its root, without a chroot: the kernel resolves each with the root as its limit."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from store.linux import paths

AT_FDCWD: Final = -100


def open_inside(root: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2) with the directory ``root`` as the limit. Raises OSError, FileNotFoundError among them."""
    try:
        return paths.openat2(root, os.fsencode(path), flags, mode, paths.RESOLVE_IN_ROOT)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # which Python makes the class for this number


class Root:
    """A directory that a step takes for ``/``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open a path of the step's. Raises OSError, FileNotFoundError among them."""
        return open_inside(self._fd, path, flags, mode)

    @contextmanager
    def found(self, path: str, *, follow: bool = True) -> Iterator[int]:
        """A descriptor of what is there, to look at and to act on by /proc/self/fd."""
        fd = self.open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that a path's last name is in, and the name. Raises OSError."""
        directory, name = posixpath.split(path.rstrip("/") or "/")
        if name in {"", ".", ".."}:
            code = errno.EBUSY if not name else errno.EINVAL
            raise OSError(code, os.strerror(code))
        fd = self.open(directory or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def absolute(self, pid: int, directory: int, path: str) -> str:
        """A path that a process means, from the step's root on. Raises OSError."""
        if path.startswith("/"):
            return path
        if directory == AT_FDCWD:
            return f"{self.directory_of(pid)}/{path}"
        place = os.readlink(f"/proc/{pid}/fd/{directory}")
        if not self._holds(place):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return f"{place[len(self.path) :]}/{path}"

    def directory_of(self, pid: int) -> str:
        """The working directory; the root for one that is not below it."""
        return self.inside(os.readlink(f"/proc/{pid}/cwd")) or "/"

    def inside(self, place: str) -> str | None:
        """A path of the outer system in the step's words; None when it is not in the root."""
        return (place[len(self.path) :] or "/") if self._holds(place) else None

    def real(self, fd: int) -> str:
        """Where a descriptor lies in the outer system."""
        return os.readlink(f"/proc/self/fd/{fd}")

    def _holds(self, place: str) -> bool:
        return place == self.path or place.startswith(self.path + "/")
