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
from functools import cache
from typing import Final

from image.value import dataclass

RECORD: Final = b"user.tierce.own"
MODE: Final = b"user.tierce.mode"
"""Permission bits in octal, of a file that on disk has more: who keeps it must read and write it as root could."""
RECORDS: Final = (RECORD, MODE)
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


def _id_map(kind: str) -> list[list[str]]:
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            return [line.split() for line in file]
    except OSError:
        return [_INITIAL]


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

    def own_name(self, name: bytes, dir_fd: int, uid: int, gid: int) -> None:
        if not uid and not gid:
            return
        path = b"/proc/self/fd/%d/%b" % (dir_fd, name)
        kind = stat.S_IFMT(os.stat(path, follow_symlinks=False).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            return  # user.* attributes are for files and directories only
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
