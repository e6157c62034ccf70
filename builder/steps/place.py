"""Placing files of one tree into another, file by file, through directory descriptors.

Everything of a file is kept (type, mode with setuid, times, extended attributes, links
among the copied files) except the owner where ``--chown`` says otherwise.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from builder.dockerfile.ignore import IgnoreRules
from builder.steps.mode import Mode
from builder.steps.tree import Owner
from builder.tree import Descent, Entry, EntryKind, Stop, Tree, kept_xattrs, never
from image.errors import InvalidInput
from store.owners import in_user_namespace, owners

if TYPE_CHECKING:
    from types import TracebackType

    from builder.steps.earlier_copy import EarlierCopy

_BLOCK: Final = 1 << 20
_SMALL: Final = 1 << 18
_AT_ONCE: Final = 1 << 28
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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
        self._upper = root if upper is None else upper

    def side(self, directory: str) -> int:
        """The root below which a file in ``directory`` is to be written."""
        return self._upper if directory in self.made else self.root

    def is_direct(self, directory: str) -> bool:
        """Whether files in ``directory`` are written to the layer itself."""
        return self.side(directory) == self._upper


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
        self._earlier = earlier
        self._stop = stop
        self._tree = tree
        self._owner = owner
        self._mode = mode
        self._mtime_ns = None if mtime_s is None else mtime_s * 1_000_000_000
        self._read = tree.descent()
        self._write: dict[int, Descent] = {}
        self._links: dict[tuple[int, int], str] = {}
        self._times: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with ExitStack() as opened:
            for descent in (self._read, *self._write.values()):
                opened.enter_context(descent)
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
        self._destination.made.clear()

    def file(self, source: str, target: str, excludes: IgnoreRules) -> None:
        """One file that is not a directory to exactly ``target``, whose parent exists."""
        for entry in self._tree.walk(source, excludes):
            self._place(entry, target)
        self._destination.made.clear()

    def directory(self, source: str, target: str) -> None:
        """The directory ``source`` without its contents."""
        entry = self._tree.entry(source)
        if entry is not None:
            self._place(entry, target)
        self._destination.made.clear()

    def _place(self, entry: Entry, target: str) -> None:
        self._stop()
        if self._mtime_ns is not None:
            entry = entry._replace(mtime_ns=self._mtime_ns)
        parent, _, name = target.rpartition("/")
        root = self._destination.root  # for files with several names, as links from one side to the other can't be
        fd = self._directory(root if entry.hardlinks else self._destination.side(parent), parent)
        if entry.kind is EntryKind.DIRECTORY:
            self._place_directory(entry, fd, name, target)
            return
        if entry.hardlinks and self._link(entry, fd, name, target):
            return
        match entry.kind:
            case EntryKind.FILE:
                if not self._link_earlier(entry, fd, name, target):
                    self._place_file(entry, fd, name)
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

    def _directory(self, side: int, path: str) -> int:
        """A descriptor of the directory ``path`` on one side of the destination, valid until the next call."""
        if side not in self._write:
            self._write[side] = Descent(side)
        return self._write[side].directory(path)

    def _link(self, entry: Entry, fd: int, name: str, target: str) -> bool:
        """Another name of a file that was copied already."""
        assert entry.hardlinks is not None
        first = self._links.setdefault(entry.hardlinks, target)
        if first == target:
            return False
        root = self._destination.root
        _replacing(fd, name, lambda: os.link(first, name, src_dir_fd=root, dst_dir_fd=fd, follow_symlinks=False))
        return True

    def _link_earlier(self, entry: Entry, fd: int, name: str, target: str) -> bool:
        """What an earlier copy made of the same file. A link leads from layer to layer, not through a mount."""
        if self._earlier is None or entry.hardlinks or entry.socket:
            return False
        return self._destination.is_direct(posixpath.dirname(target)) and self._earlier.link(entry, target, fd, name)

    def _place_directory(self, entry: Entry, fd: int, name: str, target: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
            self._destination.made.add(target)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise InvalidInput(f"cannot copy to non-directory: /{target}") from None
        self._finish(entry, fd, name, follows=True)
        for attribute, value in kept_xattrs(self._read.directory(entry.path)):
            os.setxattr(f"/proc/self/fd/{fd}/{name}", attribute, value, follow_symlinks=False)
        self._times.append((target, entry.mtime_ns))

    def _place_file(self, entry: Entry, fd: int, name: str) -> None:
        mode, owner = self._mode_of(entry), self._owner_of(entry)
        out = _create(fd, name, mode & 0o777)
        try:
            attributes = () if entry.socket else self._copy_bytes(entry, out)
            made = os.fstat(out)  # most files are right as they are made, and looking costs a tenth of setting
            theirs = owners()
            is_owned = (made.st_uid, made.st_gid) == (owner.uid, owner.gid) and not theirs.keeps_access
            if not is_owned:
                theirs.own(out, owner.uid, owner.gid)
            if not is_owned or stat.S_IMODE(made.st_mode) != mode:
                theirs.set_mode(out, mode, needed=0o600)
            for attribute, value in attributes:
                os.setxattr(out, attribute, value)
            os.utime(out, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(out)

    def _copy_bytes(self, entry: Entry, out: int) -> tuple[tuple[str, bytes], ...]:
        """The file's bytes to ``out``; its extended attributes are for the caller to set, after the owner."""
        source = self._read.open(entry.path)
        try:
            if not copy_content(source, out, entry.size, self._stop):
                raise InvalidInput(f"/{entry.path} became shorter while it was copied")
            return kept_xattrs(source)
        finally:
            os.close(source)

    def _finish(self, entry: Entry, fd: int, name: str, *, follows: bool) -> None:
        """Owner, mode and time of what was just made."""
        owner = self._owner_of(entry)
        owners().own_name(os.fsencode(name), fd, owner.uid, owner.gid)
        if follows:
            mode = self._mode_of(entry)
            if owners().keeps_access and entry.kind is EntryKind.DIRECTORY:
                mode |= 0o700
            os.chmod(name, mode, dir_fd=fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _owner_of(self, entry: Entry) -> Owner:
        return self._owner or Owner(entry.uid, entry.gid)

    def _mode_of(self, entry: Entry) -> int:
        if self._mode is None:
            return entry.mode
        return self._mode.apply(entry.mode, is_directory=entry.kind is EntryKind.DIRECTORY)


def copy_content(source: int, out: int, size: int, stop: Stop = never) -> bool:
    """Copy ``size`` bytes to the empty file ``out``; False when there are fewer. Holes stay holes."""
    if size <= _SMALL:
        data = os.read(source, size) if size else b""
        write_all(out, data)
        return len(data) == size
    if os.fstat(source).st_blocks * 512 >= size:
        return _copy_range(source, out, 0, size, stop)
    os.ftruncate(out, size)
    return all(_copy_range(source, out, start, end, stop) for start, end in _extents(source, size))


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file that hold data."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                return
            raise
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, position


def _copy_range(source: int, out: int, start: int, end: int, stop: Stop) -> bool:
    """In the kernel, which may share blocks; by hand where it can't (older kernels, two file systems)."""
    try:
        while start < end:
            stop()
            copied = os.copy_file_range(source, out, min(end - start, _AT_ONCE), start, start)
            if copied == 0:
                return False
            start += copied
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
    while start < end:
        stop()
        data = os.pread(source, min(end - start, _BLOCK), start)
        if not data:
            return False
        start += os.pwrite(out, data, start)
    return True


def write_file(root: int, path: str, data: bytes, mode: int, owner: Owner, mtime_s: int | None) -> None:
    """A whole small file at a resolved path, in place of what was there."""
    parent, _, name = path.rpartition("/")
    with Descent(root) as descent:
        out = _create(descent.directory(parent), name, 0o600)
        try:
            write_all(out, data)
            owners().own(out, owner.uid, owner.gid)
            owners().set_mode(out, mode, needed=0o600)
            if mtime_s is not None:
                os.utime(out, (mtime_s, mtime_s))
        finally:
            os.close(out)


def write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _create(fd: int, name: str, mode: int) -> int:
    """A new empty file in place of what was there, so that other links to the old one keep it."""
    try:
        return os.open(name, _NEW_FILE, mode, dir_fd=fd)
    except FileExistsError:
        _unlink(fd, name)
        return os.open(name, _NEW_FILE, mode, dir_fd=fd)


def _replacing(fd: int, name: str, make: Callable[[], None]) -> None:
    try:
        make()
    except FileExistsError:
        _unlink(fd, name)
        make()


def _unlink(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.EISDIR, errno.EPERM}:
            raise InvalidInput(f"cannot overwrite directory with non-directory: {name}") from error
        raise
