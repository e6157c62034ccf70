"""Whose a file is: its record, or for what takes no attributes a line of the layer's table.

Symbolic links, FIFOs and sockets refuse ``user.*`` attributes. Their owners are in
``overlay2/<id>/owners``, keyed by the inode of the upper directory and its time of birth,
which tells a new file of the same number. The table is a journal: each change is a line
that is there before the call returns, and the last one counts.
"""

from __future__ import annotations

import os
from typing import Final

from store.linux import paths
from store.owners import RECORD, Record, inode_key

_SYMLINK_FIFO_SOCKET: Final = frozenset({0o120000, 0o010000, 0o140000})


class Records:
    """``upper`` is a path of the upper directory, ``journal`` a descriptor to append to."""

    def __init__(self, table: dict[bytes, bytes], upper: bytes, journal: int) -> None:
        self._table = table
        self._upper = upper
        self._journal = journal

    def read(self, path: bytes, *, follow: bool) -> Record | None:
        """The record of what the path names; None is root's. Never raises."""
        found = paths.get_xattr(path, RECORD, follow=follow)
        if found is not None:
            return Record.decode(found)
        if not self._table:
            return None
        try:
            kind = os.stat(path, follow_symlinks=follow).st_mode & 0o170000
            found = self._table.get(self._key(path, follow=follow)) if kind in _SYMLINK_FIFO_SOCKET else None
        except OSError:
            return None
        return Record.decode(found) if found else None

    def write(self, path: bytes, record: Record, *, follow: bool) -> None:
        """Raises OSError when the path is gone."""
        known = self.read(path, follow=follow)
        if known == record or (known is None and record == Record(0, 0)):
            return
        try:
            if record == Record(0, 0):
                os.removexattr(path, RECORD, follow_symlinks=follow)
            else:
                os.setxattr(path, RECORD, record.encode(), follow_symlinks=follow)
        except OSError:
            self._note(self._key(path, follow=follow), b"" if record == Record(0, 0) else record.encode())

    def carry(self, path: bytes) -> None:
        """Copy a file of a lower layer up now, if the table has it: its inode changes, its owner must not."""
        try:
            owner = self._table.get(self._key(path, follow=False))
            if owner:
                os.chown(path, 0, 0, follow_symlinks=False)
                self._note(self._key(path, follow=False), owner)
        except OSError:
            return

    def _note(self, key: bytes, owner: bytes) -> None:
        self._table[key] = owner
        os.write(self._journal, b"%b %b\n" % (key, owner))

    def _key(self, path: bytes, *, follow: bool) -> bytes:
        """By the upper inode where there is one: it is what the layer writer will see."""
        fd = os.open(path, paths.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        try:
            inside = os.readlink(b"self/fd/%d" % fd)
        finally:
            os.close(fd)
        try:
            return inode_key(paths.AT_FDCWD, self._upper + inside)
        except OSError:
            return inode_key(paths.AT_FDCWD, path, follow=follow)
