"""Placing files of one tree into another, file by file, through directory descriptors.

Everything of a file is kept (type, mode with setuid, times, extended attributes, links
among the copied files) except the owner where ``--chown`` says otherwise.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from builder.dockerfile.ignore import IgnoreRules
from builder.entries import Entry, EntryKind, Stop, never
from builder.steps.mode import Mode
from builder.steps.tree import Owner
from builder.steps.write import FileWriters, Look, Pending, unlink
from builder.tree import Tree
from image.errors import InvalidInput
from store.owners import in_user_namespace, owners

if TYPE_CHECKING:
    from types import TracebackType

    from builder.steps.earlier_copy import EarlierCopy

_NODES: Final = {
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
}


class Destination:
    """The root filesystem that files are placed in, and which side of its overlay to write them on.

    ``root`` is the merged tree, ``upper`` the layer that is being made. What is in a directory that
    was made for one source lies in the layer whole, so it is written there: through overlayfs, a file
    costs nearly twice as much. The mount has never looked for the names in such a directory, so it
    can't remember them wrongly; what comes by another source may meet them, and goes through the mount.
    """

    def __init__(self, root: int, upper: int | None = None) -> None:
        self.root = root
        self.made: set[str] = set()
        self.upper = root if upper is None else upper

    def side(self, directory: str) -> int:
        """The root below which a file in ``directory`` is to be written."""
        return self.upper if directory in self.made else self.root


class Placing:
    """A context manager: directory times are set when it ends, as adding files changes them.

    ``mtime_s`` stands for every file's own time of modification. Where an ``earlier`` copy has made a
    file before, it is linked.
    """

    def __init__(
        self,
        tree: Tree,
        destination: Destination,
        owner: Owner | None,
        mode: Mode | None,
        *,
        mtime_s: int | None = None,
        stop: Stop = never,
        earlier: EarlierCopy | None = None,
    ) -> None:
        self._destination = destination
        self._stop = stop
        self._tree = tree
        self._look = Look(owner, mode)
        self._mtime_ns = None if mtime_s is None else mtime_s * 1_000_000_000
        self._files = FileWriters(tree, self._look, stop, earlier)
        self._links: dict[tuple[int, int], str] = {}
        self._times: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._files.close()
        if error is None:
            for path, mtime_ns in reversed(self._times):
                root = self._destination.root
                os.utime(path or ".", ns=(mtime_ns, mtime_ns), dir_fd=root, follow_symlinks=False)

    def contents(self, source: str, target: str, excludes: IgnoreRules) -> None:
        """What is in the directory ``source`` into the existing directory ``target``."""
        skip = len(source) + 1 if source else 0
        prefix = f"{target}/" if target else ""
        for entry in self._tree.walk(source, excludes):
            if entry.path != source:
                self._place(entry, prefix + entry.path[skip:])
        self._end_source()

    def file(self, source: str, target: str, excludes: IgnoreRules) -> None:
        """One file that is not a directory to exactly ``target``, whose parent exists."""
        for entry in self._tree.walk(source, excludes):
            self._place(entry, target)
        self._end_source()

    def directory(self, source: str, target: str) -> None:
        """The directory ``source`` without its contents."""
        entry = self._tree.entry(source)
        if entry is not None:
            self._place(entry, target)
        self._end_source()

    def _end_source(self) -> None:
        """What another source brings may take the place of this one's."""
        self._files.drain()
        self._destination.made.clear()

    def _place(self, entry: Entry, target: str) -> None:
        if self._mtime_ns is not None:
            entry = entry._replace(mtime_ns=self._mtime_ns)
        parent, _, name = target.rpartition("/")
        if entry.kind is EntryKind.FILE and entry.nlink <= 1:
            side = self._destination.side(parent)
            self._files.put(Pending(entry, side, parent, name, not entry.socket and side == self._destination.upper))
            return
        self._stop()
        root = self._destination.root  # for files with several names, as links from one side to the other can't be
        side = root if entry.hardlinks else self._destination.side(parent)
        fd = self._files.own.directory(side, parent)
        if entry.kind is EntryKind.DIRECTORY:
            self._place_directory(entry, fd, name, target)
        elif not (entry.hardlinks and self._link(entry, fd, name, target)):
            self._place_other(entry, fd, Pending(entry, side, parent, name, may_link=False))

    def _place_other(self, entry: Entry, fd: int, file: Pending) -> None:
        """What is no directory, and no file with one name."""
        name = file.name
        match entry.kind:
            case EntryKind.FILE:
                self._files.own.write(file)
            case EntryKind.SYMLINK:
                _replacing(fd, name, lambda: os.symlink(entry.link, name, dir_fd=fd))
                self._finish(entry, fd, name, follows=False)
            case EntryKind.CHARACTER if entry.rdev == 0:
                raise InvalidInput(f"/{entry.path} is a character device 0:0, which in a layer would delete a file")
            case EntryKind.FIFO | EntryKind.CHARACTER | EntryKind.BLOCK:
                kind = _NODES[entry.kind]
                if kind != stat.S_IFIFO and in_user_namespace():
                    _replacing(fd, name, lambda: owners().make_device(os.fsencode(name), fd, kind, entry.rdev))
                else:
                    _replacing(fd, name, lambda: os.mknod(name, kind | 0o600, entry.rdev, dir_fd=fd))
                self._finish(entry, fd, name, follows=True)

    def _link(self, entry: Entry, fd: int, name: str, target: str) -> bool:
        """Another name of a file that was copied already."""
        assert entry.hardlinks is not None
        first = self._links.setdefault(entry.hardlinks, target)
        if first == target:
            return False
        root = self._destination.root
        _replacing(fd, name, lambda: os.link(first, name, src_dir_fd=root, dst_dir_fd=fd, follow_symlinks=False))
        return True

    def _place_directory(self, entry: Entry, fd: int, name: str, target: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
            self._destination.made.add(target)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise InvalidInput(f"cannot copy to non-directory: /{target}") from None
        self._finish(entry, fd, name, follows=True)
        for attribute, value in self._files.own.attributes(entry):
            os.setxattr(f"/proc/self/fd/{fd}/{name}", attribute, value, follow_symlinks=False)
        self._times.append((target, entry.mtime_ns))

    def _finish(self, entry: Entry, fd: int, name: str, *, follows: bool) -> None:
        """Owner, mode and time of what was just made."""
        uid, gid = self._look.owner(entry)
        owners().own_name(os.fsencode(name), fd, uid, gid)
        if follows:
            is_directory = entry.kind is EntryKind.DIRECTORY
            mode = self._look.mode(entry, is_directory=is_directory)
            if owners().keeps_access and is_directory:
                mode |= 0o700
            os.chmod(name, mode, dir_fd=fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)


def _replacing(fd: int, name: str, make: Callable[[], None]) -> None:
    try:
        make()
    except FileExistsError:
        unlink(fd, name)
        make()
