"""Files of a tree opened by path, name by name, without following links."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from types import TracebackType

from image.errors import InvalidInput
from store.owners import RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_MAX_DEPTH = 400
"""Directories on the way to a file: each holds a descriptor, and a process has 1024 by default."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.ENODATA})


class Descent:
    """Opens files of a tree by path, reusing the directory descriptors of the previous path.

    Paths in the order of ``Tree.walk`` cost one open each. Use one per thread; a context manager.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._names: list[str] = []
        self._fds: list[int] = []
        self._last: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._last = None
        self._ascend(0)

    def directory(self, path: str) -> int:
        """A descriptor of the directory ``path``, valid until the next call.

        Raises OSError, and InvalidInput for a tree that is too deep.
        """
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        self._last = None
        fd = self._descend(path.split("/") if path else [])
        self._last = path, fd
        return fd

    def _descend(self, names: Sequence[str]) -> int:
        if len(names) > _MAX_DEPTH:
            raise InvalidInput(f"directories nest deeper than {_MAX_DEPTH} at /{'/'.join(names[:4])}/…")
        common = 0
        while common < min(len(names), len(self._names)) and names[common] == self._names[common]:
            common += 1
        self._ascend(common)
        for name in names[common:]:
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=self._fds[-1] if self._fds else self._root)
            self._fds.append(fd)
            self._names.append(name)
        return self._fds[-1] if self._fds else self._root

    def open(self, path: str) -> int:
        """A descriptor of the file ``path`` for reading; the caller closes it. Raises OSError."""
        parent, _, name = path.rpartition("/")
        return os.open(name, _OPEN_FILE, dir_fd=self.directory(parent))

    def _ascend(self, depth: int) -> None:
        while len(self._fds) > depth:
            os.close(self._fds.pop())
            self._names.pop()


def kept_xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    """The extended attributes of an open file or directory that a copy keeps, sorted.

    That is all but the kernel's own and the store's records, and of ``security.*`` the file capabilities.
    """
    try:
        listed = os.listxattr(fd)
        return tuple((name, os.getxattr(fd, name)) for name in sorted(filter(_keeps, listed))) if listed else ()
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise


def _keeps(attribute: str) -> bool:
    if attribute.startswith("security."):
        return attribute == "security.capability"
    return not attribute.startswith(("system.", "trusted.overlay.", "user.overlay.")) and (
        os.fsencode(attribute) not in RECORDS
    )
