"""Owners, modes and times: what the kernel refuses is recorded beside the file."""

from __future__ import annotations

import os
import stat
import struct
import time
from functools import partial
from typing import Final

from runner.isolation.supervisor import memory
from runner.isolation.supervisor.calls.call import NOFOLLOW, by_proc
from runner.isolation.supervisor.calls.names import Names
from runner.isolation.supervisor.paths import AT_FDCWD
from runner.runtime.notify import Notification
from store import owners

_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_NS: Final = 10**9
_UNCHANGED: Final = 0xFFFFFFFF


class Attributes(Names):
    def do_chown(self, call: Notification, path: int, uid: int, gid: int, *_: int) -> int:
        return self.do_fchownat(call, AT_FDCWD, path, uid, gid, 0)

    def do_lchown(self, call: Notification, path: int, uid: int, gid: int, *_: int) -> int:
        return self.do_fchownat(call, AT_FDCWD, path, uid, gid, NOFOLLOW)

    def do_fchown(self, call: Notification, fd: int, uid: int, gid: int, *_: int) -> int:
        with self._descriptor(call, fd) as found:
            _change_owner(found, uid, gid)
        return 0

    def do_fchownat(
        self, call: Notification, directory: int, path: int, uid: int, gid: int, flags: int, *_: int
    ) -> int:
        with self._object(call, directory, path, flags) as fd:
            _change_owner(fd, uid, gid)
        return 0

    def do_chmod(self, call: Notification, path: int, mode: int, *_: int) -> int:
        return self.do_fchmodat(call, AT_FDCWD, path, mode)

    def do_fchmod(self, call: Notification, fd: int, mode: int, *_: int) -> int:
        with self._descriptor(call, fd) as found:
            _change_mode(found, mode & 0o7777)
        return 0

    def do_fchmodat(self, call: Notification, directory: int, path: int, mode: int, *_: int) -> int:
        with self._object(call, directory, path) as fd:
            _change_mode(fd, mode & 0o7777)
        return 0

    def do_truncate(self, call: Notification, path: int, size: int, *_: int) -> int:
        with self._object(call, AT_FDCWD, path) as fd:
            os.truncate(by_proc(fd), size)
        return 0

    def do_utimensat(self, call: Notification, directory: int, path: int, times: int, flags: int, *_: int) -> int:
        words = struct.unpack("4q", memory.read(call.pid, times, 32)) if times else (0, _NOW, 0, _NOW)
        if not path:
            with self._descriptor(call, directory) as fd:
                return _set_times(by_proc(fd), os.fstat(fd), words)
        with self._object(call, directory, path, flags) as fd:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode):
                return _set_times(by_proc(fd), status, words)
        set_link = partial(_set_link_times, words=words)
        return self._at(call, directory, path, set_link)

    def do_utimes(self, call: Notification, path: int, times: int, *_: int) -> int:
        return self.do_futimesat(call, AT_FDCWD, path, times)

    def do_futimesat(self, call: Notification, directory: int, path: int, times: int, *_: int) -> int:
        words = (0, _NOW, 0, _NOW)
        if times:
            a, b, c, d = struct.unpack("4q", memory.read(call.pid, times, 32))
            words = (a, b * 1000, c, d * 1000)
        with self._object(call, directory, path) as fd:
            return _set_times(by_proc(fd), os.fstat(fd), words)

    def do_utime(self, call: Notification, path: int, times: int, *_: int) -> int:
        words = (0, _NOW, 0, _NOW)
        if times:
            a, m = struct.unpack("2q", memory.read(call.pid, times, 16))
            words = (a, 0, m, 0)
        with self._object(call, AT_FDCWD, path) as fd:
            return _set_times(by_proc(fd), os.fstat(fd), words)


def _change_owner(fd: int, uid: int, gid: int) -> None:
    """Record an owner, and touch the file as chown would: setid bits go, ctime moves."""
    status = os.fstat(fd)
    if stat.S_IFMT(status.st_mode) not in {stat.S_IFREG, stat.S_IFDIR}:
        return  # a link has no attribute to record it in
    place = os.fsencode(by_proc(fd))
    known = owners.followed_record(place) or owners.Record(0, 0)
    uid, gid = (old if new & 0xFFFFFFFF == _UNCHANGED else new & 0xFFFFFFFF for new, old in
                ((uid, known.uid), (gid, known.gid)))  # fmt: skip
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o6000:
        os.chmod(place, stat.S_IMODE(status.st_mode) & ~0o6000)
    owners.record(by_proc(fd), uid, gid, mode=known.mode, device=known.device)


def _change_mode(fd: int, mode: int) -> None:
    status = os.fstat(fd)
    needed = {stat.S_IFREG: 0o600, stat.S_IFDIR: 0o700}.get(stat.S_IFMT(status.st_mode), 0)
    os.chmod(by_proc(fd), mode | needed)
    if needed:
        owners.record_mode(by_proc(fd), mode if mode & needed != needed else None)


def _times(status: os.stat_result | None, words: tuple[int, ...]) -> tuple[int, int]:
    now = time.time_ns()
    found = []
    for seconds, nanoseconds, old in (
        (words[0], words[1], status.st_atime_ns if status else now),
        (words[2], words[3], status.st_mtime_ns if status else now),
    ):
        found.append(now if nanoseconds == _NOW else old if nanoseconds == _OMIT else seconds * _NS + nanoseconds)
    return found[0], found[1]


def _set_times(place: str, status: os.stat_result, words: tuple[int, ...]) -> int:
    os.utime(place, ns=_times(status, words))
    return 0


def _set_link_times(fd: int, name: str, words: tuple[int, ...]) -> None:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    os.utime(name, ns=_times(status, words), dir_fd=fd, follow_symlinks=False)
