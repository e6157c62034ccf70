"""What files are: status, access, where links lead; with the owners and modes on record."""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Final

from runner.isolation.supervisor import memory
from runner.isolation.supervisor.calls.call import EMPTY_PATH, NOFOLLOW, Calls, by_proc, fail
from runner.isolation.supervisor.paths import AT_FDCWD
from runner.runtime.notify import Notification
from store import owners
from store.linux.confine import fstatfs

_NS: Final = 10**9
_STAT = struct.Struct("QQQIIIIQqqqqQqQqQ3Q")


class Looking(Calls):
    def do_stat(self, call: Notification, path: int, buffer: int, *_: int) -> int:
        return self._stat(call, AT_FDCWD, path, buffer, 0)

    def do_lstat(self, call: Notification, path: int, buffer: int, *_: int) -> int:
        return self._stat(call, AT_FDCWD, path, buffer, NOFOLLOW)

    def do_newfstatat(self, call: Notification, directory: int, path: int, buffer: int, flags: int, *_: int) -> int:
        return self._stat(call, directory, path, buffer, flags)

    def do_fstat(self, call: Notification, fd: int, buffer: int, *_: int) -> int:
        with self._descriptor(call, fd) as found:
            memory.write(call.pid, buffer, self._stat_bytes(found))
        return 0

    def _stat(self, call: Notification, directory: int, path: int, buffer: int, flags: int) -> int:
        if not flags & EMPTY_PATH:
            place = self._special(call, self._path(call, directory, path))
            if place is not None:
                memory.write(call.pid, buffer, _pack_stat(os.stat(place), None, None))
                return 0
        with self._object(call, directory, path, flags) as fd:
            memory.write(call.pid, buffer, self._stat_bytes(fd))
        return 0

    def _stat_bytes(self, fd: int) -> bytes:
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR}:
            return _pack_stat(status, None, None)
        place = os.fsencode(by_proc(fd))
        return _pack_stat(status, owners.followed_record(place), owners.followed_mode(place))

    def do_access(self, call: Notification, path: int, mode: int, *_: int) -> int:
        return self.do_faccessat(call, AT_FDCWD, path, mode)

    def do_faccessat(self, call: Notification, directory: int, path: int, mode: int, *_: int) -> int:
        name = self._path(call, directory, path)
        place = self._special(call, name)
        if place is not None:
            if not os.access(place, mode):
                raise fail(errno.EACCES)
            return 0
        with self._tree.found(name) as fd:
            status = os.fstat(fd)
            if mode & os.X_OK and not (status.st_mode & 0o111 or stat.S_ISDIR(status.st_mode)):
                raise fail(errno.EACCES)
        return 0

    def do_readlink(self, call: Notification, path: int, buffer: int, size: int, *_: int) -> int:
        return self.do_readlinkat(call, AT_FDCWD, path, buffer, size)

    def do_readlinkat(self, call: Notification, directory: int, path: int, buffer: int, size: int, *_: int) -> int:
        name = self._path(call, directory, path)
        place = self._special(call, name)
        if place is not None:
            target = self.link(call.pid, place)
        else:
            with self._tree.parent(name) as (fd, last):
                target = os.readlink(last, dir_fd=fd)
        data = os.fsencode(target)[:size]
        memory.write(call.pid, buffer, data)
        return len(data)

    def link(self, pid: int, place: str) -> str:
        """As in a chroot, but a patched copy of a program is called by the program's name."""
        if place.endswith("/exe"):
            known = self._program_of(os.readlink(place))
            if known is not None:
                return known
        return super().link(pid, place)

    def do_getcwd(self, call: Notification, buffer: int, size: int, *_: int) -> int:
        data = os.fsencode(self._tree.directory_of(call.pid)) + b"\0"
        if len(data) > size:
            raise fail(errno.ERANGE)
        memory.write(call.pid, buffer, data)
        return len(data)

    def do_statfs(self, call: Notification, path: int, buffer: int, *_: int) -> int:
        with self._object(call, AT_FDCWD, path) as fd:
            memory.write(call.pid, buffer, fstatfs(fd))
        return 0

    def do_getxattr(self, *_: object) -> int:
        raise fail(errno.ENODATA)

    def do_listxattr(self, *_: object) -> int:
        return 0


def _pack_stat(status: os.stat_result, record: owners.Record | None, mode: int | None) -> bytes:
    """struct stat of x86-64, with what the records say."""
    mine = status.st_uid == os.geteuid()
    uid, gid = (record.uid, record.gid) if record else (0, 0) if mine else (status.st_uid, status.st_gid)
    bits = stat.S_IMODE(status.st_mode) if mode is None else mode
    kind = record.mode if record and record.mode else stat.S_IFMT(status.st_mode)
    device = record.device if record and record.mode else status.st_rdev
    return _STAT.pack(
        status.st_dev, status.st_ino, status.st_nlink, kind | bits, uid, gid, 0, device, status.st_size,
        status.st_blksize, status.st_blocks,
        *divmod(status.st_atime_ns, _NS), *divmod(status.st_mtime_ns, _NS), *divmod(status.st_ctime_ns, _NS), 0, 0, 0,
    )  # fmt: skip
