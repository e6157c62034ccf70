"""The upper directory of an overlay mount to a layer's tar stream.

A commit walks what a build step wrote through here; ``layer_blob`` hashes and compresses the
stream on the way. The same tree gives the same bytes: names are sorted as bytes, times are
whole seconds, there are no user names, and the tree's root has no entry of its own.

The tree is hostile, as a container wrote it: it is walked by directory descriptors, and files are
opened without following links or blocking on what they turned into.

Spec: image-spec "Image Layer Filesystem Changeset"; overlayfs's whiteouts in the kernel's
Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from image.errors import InvalidInput, StorageError
from image.value import dataclass
from store.directories import OPEN_DIRECTORY, PATH_LIMIT, Descent, open_root
from store.opaque import is_opaque
from store.owners import (
    RECORDS,
    Record,
    followed_mode,
    in_user_namespace,
    inode_key,
    owners,
    read_record,
    read_table,
    records,
)
from store.tar import END_OF_ARCHIVE, PADDING, Kind, header
from store.unpack import OVERLAY_XATTRS
from store.whiteouts import OPAQUE_MARKER, WHITEOUT_PREFIX

_PIECE_SIZE: Final = 1 << 19
_READ_SIZE: Final = 1 << 20
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WHITEOUT_DEVICE: Final = os.makedev(0, 0)

_HOST_XATTRS: Final = frozenset({b"security.selinux", b"security.evm", b"system.nfs4_acl"})
"""Labels that this machine gave, and that mean nothing on the next."""

_LOSSY_XATTRS: Final = (b"overlay.redirect", b"overlay.metacopy")
"""Overlay keeps part of such a file elsewhere, so that the upper directory alone is not the change."""

_NODE_KINDS: Final = {stat.S_IFCHR: Kind.CHAR_DEVICE, stat.S_IFBLK: Kind.BLOCK_DEVICE, stat.S_IFIFO: Kind.FIFO}

Xattrs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Packed:
    """``size`` is the content of all files in bytes, each hard-linked file once."""

    entries: int
    size: int


def pack(
    directory: Path | int,
    emit: Callable[[bytes], None],
    *,
    clamp_s: int | None,
    whiteouts: bool = True,
    owner: tuple[int, int] | None = None,
    without: Collection[bytes] = (),
) -> Packed:
    """Give ``directory``, a path or an open descriptor, as an uncompressed tar to ``emit``, in pieces of about half a MiB.

    Modification times later than ``clamp_s`` (seconds since the epoch) become it. With ``whiteouts``,
    character devices 0:0 and opaque directories are written as ``.wh.`` entries; without, they are
    what they are, and the stream is no layer but an archive. Sockets are left out, as by docker.
    ``owner``, a uid and a gid, stands for every file's own. Nothing is written of the paths
    ``without``, nor of what is below them.

    Raises InvalidInput for what a layer cannot say: a name that starts with ``.wh.``, a file that
    overlay stores in part elsewhere. Raises StorageError, naming the path, when a file cannot be
    read, or changes its size meanwhile.
    """
    packer = _Packer(emit, clamp_s, whiteouts=whiteouts, owner=owner, without=without)
    if isinstance(directory, os.PathLike) and in_user_namespace():
        packer.table = read_table(directory.parent)
    try:
        with Descent(open_root(directory)) as descent:
            return packer.run(descent)
    except OSError as error:
        where = os.fsdecode(packer.path) or str(directory)
        raise StorageError(f"cannot pack {where!r}: {(error.strerror or str(error)).lower()}") from error


def pack_entry(
    directory: int,
    name: bytes,
    emit: Callable[[bytes], None],
    *,
    named: bytes,
    owner: tuple[int, int] | None = None,
) -> Packed:
    """Give one entry of an open directory, with all below it, as an uncompressed tar to ``emit``.

    In the archive it is called ``named``; a directory packed as ``.`` is one to be merged into
    another. A ``name`` of ``b"."`` is the open directory itself. A link is packed as a link.

    Raises as ``pack``.
    """
    packer = _Packer(emit, None, whiteouts=False, owner=owner)
    packer.path = named
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        inside = os.open(name, OPEN_DIRECTORY, dir_fd=directory) if is_directory else os.dup(directory)
        with Descent(inside) as descent:
            return packer.run_directory(descent, named) if is_directory else packer.run_single(descent, name)
    except OSError as error:
        raise StorageError(
            f"cannot read {os.fsdecode(packer.path)!r}: {(error.strerror or str(error)).lower()}"
        ) from error


class _Packer:
    """The state of one ``pack``. ``path`` is what is being packed, for messages."""

    def __init__(
        self,
        emit: Callable[[bytes], None],
        clamp_s: int | None,
        *,
        whiteouts: bool,
        owner: tuple[int, int] | None,
        without: Collection[bytes] = (),
    ) -> None:
        self.path = b""
        self.table: dict[bytes, bytes] = {}
        self._emit = emit
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        self._clamp_s = clamp_s
        self._whiteouts = whiteouts
        self._owner = owner
        self._without = without
        self._recorded = records()
        self._keeper = os.geteuid() if owners().keeps_access else None
        self._first_names: dict[tuple[int, int], bytes] = {}  # of files with several links
        self._entries = 0
        self._size = 0

    def run_directory(self, descent: Descent, named: bytes) -> Packed:
        """The directory itself, with an entry of its own, and all below it."""
        self._directory_head(descent.fd)
        return self.run(descent, named + b"/")

    def run_single(self, descent: Descent, name: bytes) -> Packed:
        """What is no directory, as ``path``."""
        if stat.S_ISREG(os.stat(name, dir_fd=descent.fd, follow_symlinks=False).st_mode):
            self._file(descent.fd, name)
        elif self._other(descent, name):
            raise self._changed()
        return self._end()

    def run(self, descent: Descent, prefix: bytes = b"") -> Packed:
        """All below the directory."""
        pending = [_sorted_children(descent.fd)]
        prefixes = [prefix]
        while True:
            for name, is_file in pending[-1]:
                self.path = prefixes[-1] + name
                if self.path in self._without:
                    continue
                self._check_name(name)
                if is_file:
                    self._file(descent.fd, name)
                elif self._other(descent, name):
                    prefixes.append(self.path + b"/")
                    pending.append(_sorted_children(descent.fd))
                    break
            else:
                pending.pop()
                prefixes.pop()
                if not pending:
                    break
                descent.up()
        return self._end()

    def _end(self) -> Packed:
        self._put(END_OF_ARCHIVE)
        self._flush()
        return Packed(self._entries, self._size)

    def _check_name(self, name: bytes) -> None:
        if self._whiteouts and name.startswith(WHITEOUT_PREFIX):
            raise InvalidInput(
                f"cannot store {os.fsdecode(self.path)!r} in a layer: names that start with .wh. mean deletion, rename it"
            )
        if len(self.path) > PATH_LIMIT:
            raise InvalidInput(
                f"cannot store {os.fsdecode(self.path[:80])!r}… in a layer: its path is longer than {PATH_LIMIT} bytes"
            )

    def _file(self, dir_fd: int, name: bytes) -> None:
        fd = _open_file(dir_fd, name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise self._changed()
            listed = os.listxattr(fd)
            record = read_record(fd) if self._recorded and listed else None
            mode = followed_mode(fd) if self._recorded and listed else None
            if status.st_nlink > 1 and self._is_linked(status, record, mode):
                return
            xattrs = self._xattrs(fd, listed) if listed else []
            if record is not None and record.mode:
                device = (os.major(record.device), os.minor(record.device))
                self._head(_NODE_KINDS[record.mode], status, device=device, xattrs=xattrs, record=record, mode=mode)
                return
            self._head(Kind.FILE, status, size=status.st_size, xattrs=xattrs, record=record, mode=mode)
            self._content(fd, status.st_size)
        finally:
            os.close(fd)

    def _content(self, fd: int, size: int) -> None:
        """The file's content, exactly ``size`` bytes of it; one more is asked for, to see the end."""
        left = size
        while data := os.read(fd, min(left + 1, _READ_SIZE)):
            left -= len(data)
            self._put(data)
            if left <= 0 and len(data) < _READ_SIZE:
                break  # it fell short of what was asked, so it met the end
        if left:
            raise self._changed()
        self._size += size
        self._put(PADDING[size % 512])

    def _changed(self) -> StorageError:
        return StorageError(f"cannot pack {os.fsdecode(self.path)!r}: it changed while it was read")

    def _other(self, descent: Descent, name: bytes) -> bool:
        """Pack what is no file. True when it is a directory, which ``descent`` has then entered."""
        status = os.stat(name, dir_fd=descent.fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(descent, name)
            return True
        if kind == stat.S_IFSOCK:
            return False
        if self._whiteouts and kind == stat.S_IFCHR and status.st_rdev == _WHITEOUT_DEVICE:
            self._whiteout(self.path.removesuffix(name) + WHITEOUT_PREFIX + name)
            return False
        known = self.table.get(inode_key(descent.fd, name)) if self.table else None
        record = Record.decode(known) if known else None
        if status.st_nlink > 1 and self._is_linked(status, record):  # whiteouts share an inode too, hence after them
            return False
        path = b"/proc/self/fd/%d/%b" % (descent.fd, name)
        xattrs = self._xattrs(path, os.listxattr(path, follow_symlinks=False))
        if kind == stat.S_IFLNK:
            link = os.readlink(name, dir_fd=descent.fd)
            self._head(Kind.SYMLINK, status, link=link, xattrs=xattrs, record=record)
        elif kind in _NODE_KINDS:
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
            self._head(_NODE_KINDS[kind], status, device=device, xattrs=xattrs, record=record)
        else:
            raise self._changed()
        return False

    def _directory(self, descent: Descent, name: bytes) -> None:
        descent.down(name)
        self._directory_head(descent.fd)

    def _directory_head(self, fd: int) -> None:
        listed = os.listxattr(fd)
        xattrs = self._xattrs(fd, listed) if listed else []
        record = read_record(fd) if self._recorded and listed else None
        mode = followed_mode(fd) if self._recorded and listed else None
        self._head(Kind.DIRECTORY, os.fstat(fd), slash=b"/", xattrs=xattrs, record=record, mode=mode)
        if self._whiteouts and listed and is_opaque(fd, listed):
            self._whiteout(self.path + b"/" + OPAQUE_MARKER)

    def _is_linked(self, status: os.stat_result, record: Record | None = None, mode: int | None = None) -> bool:
        """Write a link to the file's first name; False for the first one."""
        first = self._first_names.setdefault((status.st_dev, status.st_ino), self.path)
        if first is self.path:
            return False
        self._head(Kind.HARD_LINK, status, link=first, record=record, mode=mode)
        return True

    def _head(
        self,
        kind: Kind,
        status: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        slash: bytes = b"",
        xattrs: Xattrs | tuple[()] = (),
        record: Record | None = None,
        mode: int | None = None,
    ) -> None:
        mtime_s = status.st_mtime_ns // 1_000_000_000
        if self._clamp_s is not None and mtime_s > self._clamp_s:
            mtime_s = self._clamp_s
        own = self._own(status) if record is None else (record.uid, record.gid)
        uid, gid = self._owner or own
        self._entries += 1
        self._put(
            header(
                self.path + slash,
                kind,
                mode=status.st_mode if mode is None else mode,
                uid=uid,
                gid=gid,
                size=size,
                mtime_s=mtime_s,
                link=link,
                device=device,
                xattrs=xattrs,
            )
        )

    def _own(self, status: os.stat_result) -> tuple[int, int]:
        """Without a record: the file's own, but what its keeper has is root's."""
        return (0, 0) if status.st_uid == self._keeper else (status.st_uid, status.st_gid)

    def _whiteout(self, path: bytes) -> None:
        """Time and owner of a whiteout say when and by whom it was deleted: nothing that belongs in an image."""
        self._entries += 1
        self._put(header(path, Kind.FILE, mode=0o600))

    def _xattrs(self, where: int | bytes, listed: list[str]) -> Xattrs:
        """The attributes that belong in a layer, sorted."""
        found: Xattrs = []
        for name in sorted(os.fsencode(name) for name in listed):
            if name.startswith(OVERLAY_XATTRS):
                if self._whiteouts and name.endswith(_LOSSY_XATTRS):
                    raise InvalidInput(
                        f"cannot store {os.fsdecode(self.path)!r} in a layer: it has overlay attribute {name.decode()}, "
                        "mount with redirect_dir=off,metacopy=off"
                    )
            elif name not in _HOST_XATTRS and name not in RECORDS:
                value = (
                    os.getxattr(where, name)
                    if isinstance(where, int)
                    else os.getxattr(where, name, follow_symlinks=False)
                )
                found.append((name, value))
        return found

    def _put(self, data: bytes) -> None:
        self._pieces.append(data)
        self._pieces_size += len(data)
        if self._pieces_size >= _PIECE_SIZE:
            self._flush()

    def _flush(self) -> None:
        self._emit(b"".join(self._pieces))
        self._pieces.clear()
        self._pieces_size = 0


def _sorted_children(fd: int) -> Iterator[tuple[bytes, bool]]:
    """Names in ``fd`` and whether each is a regular file, which comes free with the listing."""
    with os.scandir(fd) as listing:
        children = sorted((os.fsencode(child.name), child.is_file(follow_symlinks=False)) for child in listing)
    return iter(children)


def _open_file(dir_fd: int, name: bytes) -> int:
    try:
        return os.open(name, _OPEN_FILE | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:  # O_NOATIME is for the owner, or root over a mapped owner
        return os.open(name, _OPEN_FILE, dir_fd=dir_fd)
