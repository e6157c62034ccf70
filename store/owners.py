"""Whose files are in a user namespace, and how the store says what it cannot make there.

An ordinary user's process unpacks in a user namespace (``runner.runtime.user_namespace``).
Device nodes can't be made there, and ids that are not mapped can't own files. Both are
kept as a *record*, the attribute ``user.tierce.own`` on the inode:

    UID:GID             the file's owner in the image
    UID:GID:c:RDEV      an empty file that stands for a character device (b: a block device)

The record moves with the inode (rename, hard link, overlay's copy-up) and dies with it. The
layer writer reads it before anything else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from image.paths import Path
from image.value import dataclass
from store.linux import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

RECORD: Final = b"user.tierce.own"
MODE: Final = b"user.tierce.mode"
"""Permission bits in octal, of a file that on disk has more: who keeps it must read and write it as root could."""
RECORDS: Final = (RECORD, MODE)
TABLE: Final = "owners"
"""Beside ``diff``: the owners of what takes no attributes. See ``runner.owners.records``."""
_STATX_BTIME_AND_INODE: Final = 0x900
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INITIAL: Final = ["0", "0", "4294967295"]


@cache
def in_user_namespace() -> bool:
    """Whether this process is in a user namespace other than the machine's first. Asked once entered."""
    return _id_map("uid") != [_INITIAL]


@cache
def may_use_trusted() -> bool:
    """Whether ``trusted.*`` attributes can be set: CAP_SYS_ADMIN of the machine, which a container's root lacks."""
    if in_user_namespace():
        return False
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
        effective = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    return bool(effective >> 21 & 1)


@cache
def maps_one_id() -> bool:
    """Whether files can belong to nobody but root here."""
    return sum(int(size) for _, _, size in _id_map("uid")) == 1


def look_again() -> None:
    """For a process that has moved into a user namespace."""
    for answer in (in_user_namespace, maps_one_id, may_use_trusted, records, owners):
        answer.cache_clear()


def _id_map(kind: str) -> list[list[str]]:
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            return [line.split() for line in file]
    except OSError:
        return [_INITIAL]


def id_ranges() -> list[tuple[int, int, int]]:
    """``(inside, outside, size)`` of each range of user ids that is mapped, by number inside."""
    return sorted((int(inside), int(outside), int(size)) for inside, outside, size in _id_map("uid"))


@cache
def records() -> bool:
    """Whether files may have records: in a user namespace, and without any right to other owners."""
    return in_user_namespace() or os.geteuid() != 0


class RealOwners:
    """Owners as the kernel keeps them: for root, and where every id of the image is mapped."""

    keeps_access = False
    """Whether a mode that shuts the keeper out has to be recorded rather than set."""

    def set_mode(self, fd: int, mode: int, *, needed: int) -> None:
        """``needed`` are the bits that the keeper can't do without."""
        del needed
        os.fchmod(fd, mode)

    def own(self, fd: int, uid: int, gid: int) -> None:
        os.fchown(fd, uid, gid)

    def own_name(self, name: bytes, dir_fd: int, uid: int, gid: int) -> None:
        os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)

    def make_device(self, name: bytes, dir_fd: int, mode: int, device: int) -> None:
        """An empty file that stands for a device, which can't be made here."""
        fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            os.setxattr(fd, RECORD, Record(0, 0, mode, device).encode())
        finally:
            os.close(fd)


class RecordedOwners(RealOwners):
    """One id is mapped: every file is its, and says in a record whose it is in the image."""

    def own(self, fd: int, uid: int, gid: int) -> None:
        if uid or gid:
            os.setxattr(fd, RECORD, Record(uid, gid).encode())
        else:
            with suppress(OSError):  # a directory that is there, and had another owner
                os.removexattr(fd, RECORD)

    def own_name(self, name: bytes, dir_fd: int, uid: int, gid: int) -> None:
        if not uid and not gid:
            return
        path = b"/proc/self/fd/%d/%b" % (dir_fd, name)
        kind = stat.S_IFMT(os.stat(path, follow_symlinks=False).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            if in_user_namespace():
                with open(_table_of(dir_fd), "ab") as table:  # user.* attributes are for files and directories only
                    table.write(b"%b %b\n" % (inode_key(dir_fd, name), Record(uid, gid).encode()))
            return
        known = read_record(path)
        record = Record(uid, gid, known.mode if known else 0, known.device if known else 0)
        os.setxattr(path, RECORD, record.encode(), follow_symlinks=False)


class KeptOwners(RecordedOwners):
    """No user namespace and not root: records, and the keeper's own access to every file."""

    keeps_access = True

    def set_mode(self, fd: int, mode: int, *, needed: int) -> None:
        os.fchmod(fd, mode | needed)
        if mode & needed != needed:
            os.setxattr(fd, MODE, b"%o" % mode)


_mounted: dict[int, Path] = {}
"""The layer directory that is written through an overlay mount, by the mount's device number."""


@contextmanager
def written_through(merged: int, layer: Path) -> Iterator[None]:
    """Owners that are given through this mount belong to ``layer``, while the block runs."""
    device = os.fstat(merged).st_dev
    _mounted[device] = layer
    try:
        yield
    finally:
        del _mounted[device]


def _table_of(dir_fd: int) -> Path:
    """Of the layer that a directory is part of, seen through its mount or in its ``diff``."""
    layer = _mounted.get(os.fstat(dir_fd).st_dev)
    if layer is None:
        above, diff, _ = os.readlink(f"/proc/self/fd/{dir_fd}").partition("/diff")
        if not diff:
            raise OSError(errno.ENOTSUP, "no layer to keep the owner of a symbolic link in")
        layer = Path(above)
    return layer / TABLE


@cache
def owners() -> RealOwners:
    """How files get their owners in this process. Asked once it has entered its user namespace."""
    if maps_one_id():
        return RecordedOwners()
    return RealOwners() if os.geteuid() == 0 else KeptOwners()


@dataclass(frozen=True, slots=True)
class Record:
    """Whose a file is in the image and, with a ``mode`` of a device, which device it stands for."""

    uid: int
    gid: int
    mode: int = 0
    device: int = 0

    def encode(self) -> bytes:
        if not self.mode:
            return b"%d:%d" % (self.uid, self.gid)
        kind = b"c" if stat.S_ISCHR(self.mode) else b"b"
        return b"%d:%d:%b:%d" % (self.uid, self.gid, kind, self.device)

    @classmethod
    def decode(cls, data: bytes) -> Record | None:
        """None for what is no record: a container may have written anything."""
        words = data.split(b":")
        if len(words) not in (2, 4) or not all(word.isdigit() for word in (*words[:2], *words[3:])):
            return None
        numbers = [int(word) for word in (*words[:2], *words[3:])]
        if max(numbers) >= 1 << 32:
            return None
        if len(words) == 2:
            return cls(*numbers)
        kind = {b"c": stat.S_IFCHR, b"b": stat.S_IFBLK}.get(words[2])
        return None if kind is None else cls(numbers[0], numbers[1], kind, numbers[2])


def read_record(where: int | bytes) -> Record | None:
    """The record of a file (a descriptor, or a path that is not followed), if it has one."""
    try:
        if isinstance(where, int):
            return Record.decode(os.getxattr(where, RECORD))
        return Record.decode(os.getxattr(where, RECORD, follow_symlinks=False))
    except OSError:
        return None


# For the supervisor of emulated steps, which has files by /proc/self/fd, to be followed


def record(where: int | str, uid: int, gid: int, *, mode: int = 0, device: int = 0) -> None:
    """Write a record, or take it away from what is root's. Raises OSError."""
    if uid or gid or mode:
        os.setxattr(where, RECORD, Record(uid, gid, mode, device).encode())
    else:
        _remove(where, RECORD)


def record_mode(where: int | str, mode: int | None) -> None:
    """Say which bits a file should have; None: those that it has. Raises OSError."""
    if mode is None:
        _remove(where, MODE)
    else:
        os.setxattr(where, MODE, b"%o" % mode)


def followed_record(path: bytes) -> Record | None:
    try:
        return Record.decode(os.getxattr(path, RECORD))
    except OSError:
        return None


def followed_mode(path: bytes | int) -> int | None:
    """The recorded permission bits, if there are any."""
    try:
        return int(os.getxattr(path, MODE), 8) & 0o7777
    except (OSError, ValueError):
        return None


def _remove(where: int | str, name: bytes) -> None:
    try:
        os.removexattr(where, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def recorded_metadata(path: bytes, status: os.stat_result) -> tuple[int, int, int]:
    """Permission bits, uid and gid of an entry in the image. The path's last name is not followed."""
    mode, mine = stat.S_IMODE(status.st_mode), status.st_uid == os.geteuid()
    uid, gid = (0, 0) if owners().keeps_access and mine else (status.st_uid, status.st_gid)
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return mode, uid, gid
    known = read_record(path)
    bits = followed_mode(path)
    return mode if bits is None else bits, known.uid if known else uid, known.gid if known else gid


def inode_key(dir_fd: int, path: bytes, *, follow: bool = False) -> bytes:
    """Names a file for as long as it lives, and no later one: inode and time of birth. Raises OSError."""
    flags = 0 if follow else paths.AT_SYMLINK_NOFOLLOW
    found = paths.statx(dir_fd, path, flags, _STATX_BTIME_AND_INODE)
    inode = int.from_bytes(found[32:40], "little")
    return b"%d.%d.%d" % (inode, int.from_bytes(found[80:88], "little"), int.from_bytes(found[88:92], "little"))


def read_table(layer: Path) -> dict[bytes, bytes]:
    """The table of one layer directory; the last line of a file counts. Empty when there is none."""
    found: dict[bytes, bytes] = {}
    with suppress(OSError):
        for line in (layer / TABLE).read_bytes().splitlines():
            key, _, owner = line.partition(b" ")
            found[key] = owner
    return found


def seen(dir_fd: int, name: str, status: os.stat_result) -> Record:
    """Whose a file is, by its record where files have one. ``name`` "" is the directory itself."""
    own = Record(status.st_uid, status.st_gid)
    if not in_user_namespace():
        return own
    path = os.fsencode(f"/proc/self/fd/{dir_fd}/{name or '.'}")
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        return read_record(path) or own
    layer = _mounted.get(status.st_dev)
    known = read_table(layer).get(inode_key(dir_fd, os.fsencode(name))) if layer is not None else None
    return Record.decode(known) or own if known else own


def copy_record(source: Path | None, target: Path) -> None:
    """What a container sees as ``/`` is owned as the root below it."""
    record = read_record(os.fsencode(source)) if source is not None and in_user_namespace() else None
    if record is not None:
        os.setxattr(target, RECORD, record.encode())
