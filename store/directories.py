"""Directories as descriptors: how ``unpack`` and ``diff`` move in a tree they do not trust.

A path names whatever a symlink makes of it at that moment; a descriptor names one directory.
So every step here is one name, opened with O_NOFOLLOW relative to a descriptor. Neither
class ever opens anything outside its root, and each holds a bounded number of descriptors
whatever the tree's depth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from types import TracebackType

from image.paths import Path
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Self

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Readable rather than O_PATH: the same descriptor serves fchmod, fsetxattr and futimens."""

PATH_LIMIT: Final = 4095
"""Longest path in bytes that the kernel takes (PATH_MAX without its zero byte)."""

_OPEN_LIMIT: Final = 128
_ATTEMPTS: Final = 20
"""Each gets further where another process removes the same tree."""
_LINK_LIMIT: Final = 40  # as the kernel's own MAXSYMLINKS


def open_root(directory: Path | int) -> int:
    """A descriptor of its own for a directory that is given by path or as an open one. Raises OSError."""
    if isinstance(directory, int):
        return os.open(".", OPEN_DIRECTORY, dir_fd=directory)
    return os.open(directory, OPEN_DIRECTORY)


@dataclass(frozen=True, slots=True)
class Directory:
    """An open directory. ``path`` is relative to the root, without symlinks; ``b""`` is the root itself."""

    fd: int
    path: bytes
    setgid: bool
    """New files take the directory's group, not the process's."""


class Directories:
    """Directories below ``root`` by path, opened once and kept while there is room.

    Symlinks on the way are followed as a process whose root directory is ``root`` would
    see them: absolute targets start at ``root`` and ``..`` stops there. This is what docker's
    chroot does when it unpacks.

    A returned Directory is open until the next call. ``make(parent, name)`` is called for a
    directory that is missing, or in whose place something else stands, and has to make it.
    """

    def __init__(self, root: Path | int, make: Callable[[Directory, bytes], None]) -> None:
        self._make = make
        self._root = self._directory(open_root(root), b"")
        self._open = {b"": self._root}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for directory in self._open.values():
            os.close(directory.fd)
        self._open.clear()

    def at(self, path: bytes, *, make: bool = True) -> Directory:
        """The directory at a clean relative ``path``.

        Raises OSError; FileNotFoundError or NotADirectoryError if it is not there and may not be made.
        """
        return self._open.get(path) or self._walk(path, make=make)

    def forget(self, path: bytes) -> None:
        """Close what is open at and below ``path``, for it is about to be removed."""
        below = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            os.close(self._open.pop(known).fd)

    def refresh(self, directory: Directory) -> None:
        """Look at the mode again, which has been changed."""
        fresh = self._directory(directory.fd, directory.path)
        self._open[directory.path] = fresh
        if not fresh.path:
            self._root = fresh

    def _walk(self, path: bytes, *, make: bool) -> Directory:
        here = self._root
        names = path.split(b"/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = self.at(here.path.rpartition(b"/")[0], make=make)
                continue
            child = self._child(here, name, make=make)
            if isinstance(child, Directory):
                here = child
                continue
            links += 1
            if links > _LINK_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if child.startswith(b"/"):
                here = self._root
            names += child.split(b"/")[::-1]
        return here

    def _child(self, parent: Directory, name: bytes, *, make: bool) -> Directory | bytes:
        """The directory ``name`` in ``parent``, or the target of the symlink of that name."""
        path = b"%b/%b" % (parent.path, name) if parent.path else name
        known = self._open.get(path)
        if known is not None:
            return known
        if len(path) > PATH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        try:
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            with contextlib.suppress(OSError):
                return os.readlink(name, dir_fd=parent.fd)
            if not make:
                raise
            self._make(parent, name)
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd)
        return self._remember(self._directory(fd, path))

    def _directory(self, fd: int, path: bytes) -> Directory:
        return Directory(fd, path, bool(os.fstat(fd).st_mode & stat.S_ISGID))

    def _remember(self, directory: Directory) -> Directory:
        """Keep it open, in place of the one that has been open longest."""
        if len(self._open) >= _OPEN_LIMIT:
            oldest = next(path for path in self._open if path)
            os.close(self._open.pop(oldest).fd)
        self._open[directory.path] = directory
        return directory


class Descent:
    """One open directory, moved down by name and up by ``..``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._above: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self.fd)

    def down(self, name: bytes) -> None:
        here = os.fstat(self.fd)
        self._move(os.open(name, OPEN_DIRECTORY, dir_fd=self.fd))
        self._above.append((here.st_dev, here.st_ino))

    def up(self) -> None:
        """Back to the directory that ``down`` left. Raises ESTALE if the tree was moved meanwhile."""
        parent = os.open("..", OPEN_DIRECTORY, dir_fd=self.fd)
        found = os.fstat(parent)
        self._move(parent)
        if (found.st_dev, found.st_ino) != self._above.pop():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _move(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


def remove_tree(name: bytes, *, dir_fd: int, keep: Callable[[bytes], bool] = lambda _path: False) -> None:
    """Remove whatever ``name`` is in ``dir_fd``, without following symlinks, at any depth.

    What ``keep`` says yes to stays; it is asked with paths that start with ``name``, and has to say
    yes to the directories above what it keeps.
    """
    if not keep(name):
        try:
            os.unlink(name, dir_fd=dir_fd)
        except IsADirectoryError:
            pass
        else:
            return
    elif not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        return
    with Descent(os.dup(dir_fd)) as descent:
        _empty(descent, name, keep)


def discard_tree(path: str | os.PathLike[str]) -> None:
    """Remove a tree of ours as far as it can be; other processes may do so at the same time.

    In the place of ``shutil.rmtree``, whose import takes longer than what is to be removed.
    """
    above, name = os.path.split(os.path.abspath(os.fsencode(path)))
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            fd = os.open(above, OPEN_DIRECTORY)
            held.callback(os.close, fd)
            remove_tree(name, dir_fd=fd)
        if not os.path.lexists(path):
            return


def _empty(descent: Descent, top: bytes, keep: Callable[[bytes], bool]) -> None:
    path: list[bytes] = [top]
    descent.down(top)
    pending = [_children(descent.fd)]
    while path:
        if not pending[-1]:
            pending.pop()
            descent.up()
            if not keep(b"/".join(path)):
                os.rmdir(path[-1], dir_fd=descent.fd)
            path.pop()
        elif _must_descend(descent.fd, (name := pending[-1].pop()), kept=keep(b"/".join((*path, name)))):
            descent.down(name)
            path.append(name)
            pending.append(_children(descent.fd))


def _must_descend(fd: int, name: bytes, *, kept: bool) -> bool:
    """Whether ``name`` is a directory; what is none is removed at once, unless it is kept."""
    if kept:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    try:
        os.unlink(name, dir_fd=fd)
    except IsADirectoryError:
        return True
    return False


def _children(fd: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(fd)]
