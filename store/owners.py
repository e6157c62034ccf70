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

import os
import stat
from functools import cache
from typing import Final

from image.value import dataclass

RECORD: Final = b"user.tierce.own"
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


class RealOwners:
    """Owners as the kernel keeps them: for root, and where every id of the image is mapped."""

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


@cache
def owners() -> RealOwners:
    """How files get their owners in this process. Asked once it has entered its user namespace."""
    return RecordedOwners() if maps_one_id() else RealOwners()


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
