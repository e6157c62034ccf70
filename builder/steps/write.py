"""Regular files of a copy: how one is written, and how many are, by two threads.

Most of a copy is the kernel's work, which lets go of the interpreter lock, so a second thread
brings a second processor. Who walks the tree hands over batches; when the other thread has enough to
do, the walker writes a batch itself.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from queue import Full, Queue
from typing import TYPE_CHECKING, Final, NamedTuple

from builder.descent import Descent, kept_xattrs
from builder.entries import Entry, Stop, never
from builder.steps.mode import Mode
from builder.steps.tree import Owner
from builder.tree import Tree
from image.errors import Cancelled, InvalidInput
from store.owners import owners

if TYPE_CHECKING:
    from builder.steps.earlier_copy import EarlierCopy

_BLOCK: Final = 1 << 20
_SMALL: Final = 1 << 18
_AT_ONCE: Final = 1 << 28
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH: Final = 64
_BATCHES: Final = 2
"""That wait for the other thread."""


class Look:
    """What ``--chown`` and ``--chmod`` say; without them files look as they did."""

    def __init__(self, owner: Owner | None, mode: Mode | None) -> None:
        self._owner = owner
        self._mode = mode

    def owner(self, entry: Entry) -> tuple[int, int]:
        """uid and gid."""
        owner = self._owner
        return (entry.uid, entry.gid) if owner is None else (owner.uid, owner.gid)

    def mode(self, entry: Entry, *, is_directory: bool = False) -> int:
        return entry.mode if self._mode is None else self._mode.apply(entry.mode, is_directory=is_directory)


class Pending(NamedTuple):
    """A regular file, or a socket, which becomes an empty one, and where it goes: a name in ``parent`` below ``side``."""

    entry: Entry
    side: int
    parent: str
    name: str
    may_link: bool
    """Whether it may be a link to what an earlier copy made. A link leads from layer to layer, not through a mount."""


class FileWriter:
    """Writes files one after the other. One a thread; a context manager's block ends by ``close``."""

    def __init__(self, tree: Tree, look: Look, stop: Stop, earlier: EarlierCopy | None) -> None:
        self._look = look
        self._stop = stop
        self._earlier = earlier
        self._read = tree.descent()
        self._write: dict[int, Descent] = {}

    def close(self) -> None:
        for descent in (self._read, *self._write.values()):
            descent.close()

    def directory(self, side: int, path: str) -> int:
        """A descriptor of the directory ``path`` on one side of the destination, valid until the next call."""
        descent = self._write.get(side)
        if descent is None:
            descent = self._write[side] = Descent(side)
        return descent.directory(path)

    def attributes(self, entry: Entry) -> tuple[tuple[str, bytes], ...]:
        """Those that a copy of the directory ``entry`` keeps."""
        return kept_xattrs(self._read.directory(entry.path))

    def write(self, file: Pending) -> None:
        """Raises OSError, InvalidInput, and what ``stop`` does."""
        self._stop()
        entry, side, parent, name, may_link = file
        fd = self.directory(side, parent)
        if may_link and self._earlier is not None:
            target = f"{parent}/{name}" if parent else name
            if self._earlier.link(entry, target, fd, name):
                return
        self._copy(entry, fd, name)

    def _copy(self, entry: Entry, fd: int, name: str) -> None:
        mode, (uid, gid) = self._look.mode(entry), self._look.owner(entry)
        out = create(fd, name, mode & 0o777)
        try:
            attributes = () if entry.socket else self._copy_bytes(entry, out)
            made = os.fstat(out)  # most files are right as they are made, and looking costs a tenth of setting
            theirs = owners()
            is_owned = made.st_uid == uid and made.st_gid == gid and not theirs.keeps_access
            if not is_owned:
                theirs.own(out, uid, gid)
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


class FileWriters:
    """Writes the files that are ``put``, in no order, until ``drain`` or ``close``. The other thread starts when there is work for it."""

    def __init__(self, tree: Tree, look: Look, stop: Stop, earlier: EarlierCopy | None) -> None:
        self.own = FileWriter(tree, look, stop, earlier)
        self._other = FileWriter(tree, look, self._go_on, earlier)
        self._stop = stop
        self._batch: list[Pending] = []
        self._handed: Queue[Sequence[Pending] | None] = Queue(_BATCHES)
        self._thread: threading.Thread | None = None
        self._given_up = False
        self._error: BaseException | None = None

    def put(self, file: Pending) -> None:
        """Raises what writing it does, or one of the files before."""
        self._batch.append(file)
        if len(self._batch) >= _BATCH:
            batch, self._batch = self._batch, []
            if not self._hand_over(batch):
                self._write_all(batch)

    def drain(self) -> None:
        """Returns when all files are written. Raises as ``put``."""
        batch, self._batch = self._batch, []
        self._write_all(batch)
        if self._thread is not None:
            self._handed.join()
        self._check()

    def close(self) -> None:
        """Give up what is not written yet; afterwards nothing is done any more."""
        self._given_up = True
        if self._thread is not None:
            self._handed.put(None)
            self._thread.join()
        self.own.close()
        self._other.close()

    def _hand_over(self, batch: Sequence[Pending]) -> bool:
        if self._thread is None:
            if len(os.sched_getaffinity(0)) < 2:
                return False
            self._thread = threading.Thread(target=self._run, name="copy", daemon=True)
            self._thread.start()
        try:
            self._handed.put_nowait(batch)
        except Full:
            return False
        return True

    def _write_all(self, batch: Sequence[Pending]) -> None:
        self._check()
        for file in batch:
            self.own.write(file)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (batch := self._handed.get()) is not None:
            try:
                for file in batch if self._error is None else ():
                    self._other.write(file)
            except BaseException as error:  # carried to who hands over
                self._error = error
            finally:
                self._handed.task_done()

    def _go_on(self) -> None:
        self._stop()
        if self._given_up:
            raise Cancelled("copying was given up")


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
        out = create(descent.directory(parent), name, 0o600)
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


def create(fd: int, name: str, mode: int) -> int:
    """A new empty file in place of what was there, so that other links to the old one keep it."""
    try:
        return os.open(name, _NEW_FILE, mode, dir_fd=fd)
    except FileExistsError:
        unlink(fd, name)
        return os.open(name, _NEW_FILE, mode, dir_fd=fd)


def unlink(fd: int, name: str) -> None:
    """Remove what a file takes the place of. Raises InvalidInput for a directory."""
    try:
        os.unlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno in {errno.EISDIR, errno.EPERM}:
            raise InvalidInput(f"cannot overwrite directory with non-directory: {name}") from error
        raise
