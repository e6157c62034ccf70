"""A layer's tar stream to a directory tree.

Pull, load and import put each layer through here into an empty directory that overlay
will mount; flattening and ``ADD`` of an archive use it over a tree that exists.

The archive is hostile. Each name is taken apart and opened piece by piece through
directories.py, so nothing outside the target is read, written or changed; its last
component is never followed. A failure leaves a partial tree, which the caller discards.

Where docker and containerd agree, this does the same: a leading ``/`` is dropped, ``a/../b`` is
``b``, symlinks above an entry are followed inside the target, a later entry replaces an
earlier one, a character device 0:0 is made as it is asked (overlay takes it for a whiteout;
it says no more than ``.wh.`` would).

Spec: image-spec "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, assert_never

from image.errors import Conflict, InvalidArchive, StorageError
from image.value import dataclass
from store.directories import OPEN_DIRECTORY, PATH_LIMIT, Directories, Directory, remove_tree
from store.opaque import mark_opaque
from store.owners import RECORDS, owners, records
from store.tar import Entry, Kind
from store.tar_reader import Reader, shown
from store.whiteouts import WHITEOUT_PREFIX, read_whiteout

Whiteouts = Literal["overlay", "apply", "keep"]
"""What becomes of ``.wh.`` entries.

``overlay``  a character device 0:0, and ``trusted.overlay.opaque`` on directories;
             the target must be empty at the start,
``apply``    what they name is removed from the target,
``keep``     they are files like others: an archive that is no layer.
"""

OVERLAY_XATTRS: Final = (b"trusted.overlay.", b"user.overlay.")

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NODE_TYPES: Final = {Kind.CHAR_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
_WHITEOUT_DEVICE: Final = os.makedev(0, 0)
_SKIPPED_XATTRS_LIMIT: Final = 64

_ARCHIVE_FAULTS: Final = frozenset({
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EINVAL,
    errno.ERANGE, errno.E2BIG, errno.EFBIG, errno.EOVERFLOW, errno.EMLINK, errno.EEXIST,
})  # fmt: skip
"""Errors that an entry's own name or value causes; all others are the storage's."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """``size`` is the content of all files in bytes, holes included."""

    entries: int
    size: int
    skipped_xattrs: tuple[str, ...] = ()
    """Names of attributes, at most 64, that the file system below the target cannot store."""


def unpack(
    read: Callable[[int], bytes], target: Path | int, *, whiteouts: Whiteouts, like_by_like: bool = False
) -> Unpacked:
    """Unpack the uncompressed tar that ``read(n)`` gives, up to n bytes a call, into ``target``, a path or an open directory.

    Types, modes, owners, link counts, extended attributes and modification times (to the
    nanosecond) become those of the archive, whatever the umask. Directories that the archive
    leaves out are made 0755, owned by root. Overlay's own attributes in the archive are ignored:
    only overlay, and whiteouts, may say what is opaque.

    A whiteout hides what lower layers hold, never an entry of its own archive, in whichever
    order they come.

    With ``like_by_like`` a directory never takes the place of something else, nor the other way
    round, and ``target`` itself keeps its mode, owner and time.

    Raises InvalidArchive, naming the entry, for an archive that is malformed or reaches out of
    ``target``; Conflict for what ``like_by_like`` forbids; StorageError, naming the entry, when
    the file system refuses.
    """
    unpacker = _Unpacker(Reader(read), whiteouts, like_by_like=like_by_like)
    try:
        with Directories(target, unpacker.make_parent) as directories:
            return unpacker.run(directories)
    except OSError as error:
        where = "a directory" if isinstance(target, int) else target
        raise StorageError(f"cannot unpack into {where}: {_reason(error)}") from error


class _Unpacker:
    """The state of one ``unpack``."""

    _directories: Directories

    def __init__(self, reader: Reader, whiteouts: Whiteouts, *, like_by_like: bool) -> None:
        self._reader = reader
        self._like_by_like = like_by_like
        self._converts = whiteouts != "keep"
        self._overlay = whiteouts == "overlay"
        self._owner = (os.geteuid(), os.getegid())
        self._owners = owners()
        self._umask = _umask()
        self._chmod_bits = self._umask | 0o7000
        self._mtimes: dict[bytes, int] = {}
        self._written: set[bytes] | None = set() if whiteouts == "apply" else None
        self._skipped_xattrs: set[str] = set()

    def run(self, directories: Directories) -> Unpacked:
        self._directories = directories
        reader, place = self._reader, self._place
        entries = size = 0
        while (entry := reader.next()) is not None:
            try:
                place(entry)
            except InvalidArchive as error:
                raise InvalidArchive(error.problem, entry=shown(entry.name)) from error
            except OSError as error:
                raise _failure(entry, error) from error
            entries += 1
            size += entry.size
        self._set_directory_times()
        return Unpacked(entries, size, tuple(sorted(self._skipped_xattrs)))

    def _place(self, entry: Entry) -> None:
        path = clean(entry.name)
        if self._converts and WHITEOUT_PREFIX in path and self._is_whiteout(path):
            return
        parent_path, _, name = path.rpartition(b"/")
        if not name and entry.kind is not Kind.DIRECTORY:
            raise InvalidArchive("the root can only be a directory")
        match entry.kind:
            case Kind.FILE:
                self._file(entry, self._directories.at(parent_path), name)
            case Kind.DIRECTORY:
                self._directory(entry, parent_path, name)
            case Kind.SYMLINK:
                self._symlink(entry, self._directories.at(parent_path), name)
            case Kind.HARD_LINK:
                self._hard_link(entry, parent_path, name)
            case Kind.CHAR_DEVICE | Kind.BLOCK_DEVICE | Kind.FIFO:
                self._node(entry, self._directories.at(parent_path), name)
            case _:
                assert_never(entry.kind)

    def _file(self, entry: Entry, parent: Directory, name: bytes) -> None:
        self._note_written(parent, name)
        mode = entry.mode
        try:
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent.fd)
        except FileExistsError:
            self._remove(parent, name)
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent.fd)
        try:
            if entry.size:
                self._reader.copy_to(fd)
            if parent.setgid or (entry.uid, entry.gid) != self._owner:
                self._owners.own(fd, entry.uid, entry.gid)
            if mode & self._chmod_bits or self._owners.keeps_access:  # after chown, which takes setuid away
                self._owners.set_mode(fd, mode, needed=0o600)
            if entry.xattrs:  # after chown, which takes capabilities away
                self._set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, parent_path: bytes, name: bytes) -> None:
        path = name
        if name:
            parent = self._directories.at(parent_path)
            self._note_written(parent, name)
            try:
                os.mkdir(name, 0o700, dir_fd=parent.fd)
            except FileExistsError:
                status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    self._replace_by_directory(parent, name, status)
            path = _join(parent.path, name)
        elif self._like_by_like:
            return
        directory = self._directories.at(path)
        self._owners.own(directory.fd, entry.uid, entry.gid)
        self._owners.set_mode(directory.fd, entry.mode, needed=0o700)
        self._set_xattrs(directory.fd, entry)
        self._directories.refresh(directory)
        self._mtimes[path] = entry.mtime_ns

    def _symlink(self, entry: Entry, parent: Directory, name: bytes) -> None:
        self._note_written(parent, name)
        target = _link(entry)
        self._replacing(parent, name, lambda: os.symlink(target, name, dir_fd=parent.fd))
        self._dress(entry, parent, name)

    def _hard_link(self, entry: Entry, parent_path: bytes, name: bytes) -> None:
        """Link to the very thing that the first name leads to now, be it a symlink."""
        source_path, _, source_name = clean(_link(entry)).rpartition(b"/")
        if not source_name:
            raise InvalidArchive("hard link to the root")
        try:
            source = os.open(source_name, _LOOK, dir_fd=self._directories.at(source_path, make=False).fd)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidArchive(f"hard link to {shown(entry.link)!r}, which is not in the archive") from error
        try:
            status = os.fstat(source)
            if stat.S_ISDIR(status.st_mode) or self._is_overlay_whiteout(status):
                raise InvalidArchive(f"hard link to {shown(entry.link)!r}, which is no file")
            parent = self._directories.at(parent_path)
            self._note_written(parent, name)
            if _same_file(status, name, parent.fd):
                return
            proc = f"/proc/self/fd/{source}"  # so that the link is to what was looked at
            self._replacing(parent, name, lambda: os.link(proc, name, dst_dir_fd=parent.fd, follow_symlinks=True))
        finally:
            os.close(source)

    def _node(self, entry: Entry, parent: Directory, name: bytes) -> None:
        """A device or FIFO. It is never opened, as that could block or act."""
        self._note_written(parent, name)
        mode = _NODE_TYPES[entry.kind] | (entry.mode & 0o777)
        device = os.makedev(*entry.device)
        if entry.kind is not Kind.FIFO and device != _WHITEOUT_DEVICE and records():
            self._replacing(parent, name, lambda: self._owners.make_device(name, parent.fd, mode, device))
        else:
            self._replacing(parent, name, lambda: os.mknod(name, mode, device, dir_fd=parent.fd))
        self._dress(entry, parent, name)

    def _dress(self, entry: Entry, parent: Directory, name: bytes) -> None:
        """Owner, mode, attributes and time of what cannot be opened."""
        self._owners.own_name(name, parent.fd, entry.uid, entry.gid)
        path = b"/proc/self/fd/%d/%b" % (parent.fd, name)
        if entry.kind is not Kind.SYMLINK:
            fd = os.open(name, _LOOK, dir_fd=parent.fd)
            try:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
            finally:
                os.close(fd)
        self._set_xattrs(path, entry)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)

    def _set_xattrs(self, where: int | bytes, entry: Entry) -> None:
        for name, value in entry.xattrs:
            if name.startswith(OVERLAY_XATTRS) or name in RECORDS:
                continue
            if not name or b"\0" in name:
                raise InvalidArchive(f"extended attribute name {shown(name)!r} is malformed")
            try:
                if isinstance(where, int):
                    os.setxattr(where, name, value)
                else:
                    os.setxattr(where, name, value, follow_symlinks=False)
            except OSError as error:
                # user.* exists for files and directories only, and says so with EPERM
                if error.errno != errno.ENOTSUP and not (error.errno == errno.EPERM and _may_be_refused(name)):
                    raise
                if len(self._skipped_xattrs) < _SKIPPED_XATTRS_LIMIT:
                    self._skipped_xattrs.add(shown(name))

    def _set_directory_times(self) -> None:
        """Last of all, because each entry made in a directory changes its time."""
        for path, mtime_ns in self._mtimes.items():
            try:
                os.utime(self._directories.at(path, make=False).fd, ns=(mtime_ns, mtime_ns))
            except OSError as error:
                raise StorageError(f"cannot unpack {shown(path)!r}: {_reason(error)}") from error

    def make_parent(self, parent: Directory, name: bytes) -> None:
        """Make a directory that the archive names only as part of a longer name."""
        self._note_written(parent, name)
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            if not self._is_overlay_whiteout(status):
                raise InvalidArchive(f"{shown(_join(parent.path, name))!r} above it is no directory") from None
            self._replace_by_directory(parent, name, status)
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent.fd)
        try:
            self._owners.own(fd, 0, 0)
            os.fchmod(fd, 0o755)
        finally:
            os.close(fd)

    def _replace_by_directory(self, parent: Directory, name: bytes, status: os.stat_result) -> None:
        """A directory in place of something else; of a whiteout, an opaque one, so that both hold."""
        if self._like_by_like:
            raise Conflict(f"cannot overwrite non-directory {shown(_join(parent.path, name))!r} with a directory")
        self._remove(parent, name)
        os.mkdir(name, 0o700, dir_fd=parent.fd)
        if self._is_overlay_whiteout(status):
            self._make_opaque(parent, name)

    def _replacing(self, parent: Directory, name: bytes, create: Callable[[], None]) -> None:
        try:
            create()
        except FileExistsError:
            self._remove(parent, name)
            create()

    def _remove(self, parent: Directory, name: bytes) -> None:
        path = _join(parent.path, name)
        if self._like_by_like:
            self._unlink(parent, name, path)
            return
        self._forget(path)
        remove_tree(name, dir_fd=parent.fd)

    def _unlink(self, parent: Directory, name: bytes, path: bytes) -> None:
        try:
            os.unlink(name, dir_fd=parent.fd)
        except IsADirectoryError:
            raise Conflict(f"cannot overwrite directory {shown(path)!r} with a non-directory") from None

    def _forget(self, path: bytes) -> None:
        self._directories.forget(path)
        below = path + b"/"
        for known in [known for known in self._mtimes if known == path or known.startswith(below)]:
            del self._mtimes[known]

    def _is_whiteout(self, path: bytes) -> bool:
        """Act on ``path`` if it is a whiteout; False when it only looks like one."""
        found = read_whiteout(path)
        if found is None or found.victim is None:
            return found is not None
        parent = self._directories.at(found.parent)
        if found.victim:
            self._hide(parent, found.victim)
        else:
            self._hide_all(parent)
        return True

    def _hide(self, parent: Directory, name: bytes) -> None:
        if self._written is not None:
            self._remove_lower(parent, name)
            return
        try:
            os.mknod(name, stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=parent.fd)
        except FileExistsError:
            # The archive has it anew: a file hides the lower one already, a directory must not merge with it.
            if stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode):
                self._make_opaque(parent, name)

    def _hide_all(self, directory: Directory) -> None:
        if self._written is None:
            mark_opaque(directory.fd)
            return
        for name in os.listdir(directory.fd):
            self._remove_lower(directory, os.fsencode(name))

    def _remove_lower(self, parent: Directory, name: bytes) -> None:
        """Remove ``name`` and all below it that was there before this archive."""
        written = self._written or set()
        path = _join(parent.path, name)
        if path not in written:
            self._forget(path)
        prefix = path.removesuffix(name)
        try:
            remove_tree(name, dir_fd=parent.fd, keep=lambda below: prefix + below in written)
        except FileNotFoundError:
            return

    def _note_written(self, parent: Directory, name: bytes) -> None:
        """Remember for ``apply`` that this archive brought ``name``, and with it all above."""
        if self._written is None:
            return
        path = _join(parent.path, name)
        while path and path not in self._written:
            self._written.add(path)
            path = path.rpartition(b"/")[0]

    def _is_overlay_whiteout(self, status: os.stat_result) -> bool:
        return self._overlay and stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT_DEVICE

    def _make_opaque(self, parent: Directory, name: bytes) -> None:
        mark_opaque(b"/proc/self/fd/%d/%b" % (parent.fd, name))


def _may_be_refused(name: bytes) -> bool:
    """Names that some files, or processes in a user namespace, must not have."""
    return name.startswith(b"user.") or (records() and name.startswith((b"trusted.", b"security.")))


def clean(name: bytes) -> bytes:
    """A name from an archive as a relative path without ``.``, ``..`` and empty parts; ``b""`` is the root.

    ``..`` is taken away with the part before it, as text, as docker and containerd do. Raises
    InvalidArchive for a name that leaves the root, is empty or too long, or holds a zero byte.
    """
    if not name:
        raise InvalidArchive("a name is empty")
    if len(name) > PATH_LIMIT:
        raise InvalidArchive(f"a name is longer than {PATH_LIMIT} bytes")
    if b"\0" in name:
        raise InvalidArchive(f"{shown(name)!r} holds a zero byte")
    if name.startswith(b"./"):  # as most archivers write it
        name = name[2:] or b"."
    if name[0] not in b"/." and b"/." not in name and b"//" not in name:
        return name.rstrip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArchive(f"{shown(name)!r} leaves the root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _link(entry: Entry) -> bytes:
    if not entry.link:
        raise InvalidArchive("link without a target")
    if b"\0" in entry.link:
        raise InvalidArchive("link target holds a zero byte")
    return entry.link


def _join(directory: bytes, name: bytes) -> bytes:
    return b"%b/%b" % (directory, name) if directory else name


def _same_file(status: os.stat_result, name: bytes, dir_fd: int) -> bool:
    """Whether ``name`` is the file of ``status`` already: removing it first would lose both."""
    try:
        return os.path.samestat(status, os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _umask() -> int:
    """The process's umask. Read, because setting it to learn it would race with other threads."""
    try:
        with open("/proc/self/status", "rb") as status:
            return next(int(line[6:], 8) for line in status if line.startswith(b"Umask:"))
    except (OSError, StopIteration):
        return 0o777  # unknown: modes are then always set after creation


def _failure(entry: Entry, error: OSError) -> InvalidArchive | StorageError:
    reason = _reason(error)
    if error.errno in _ARCHIVE_FAULTS:
        return InvalidArchive(reason, entry=shown(entry.name))
    return StorageError(f"cannot unpack {shown(entry.name)!r}: {reason}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
