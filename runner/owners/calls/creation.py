"""New files of a process that is taken for another user, and device nodes.

What root makes in a directory of root's is left to the kernel. The rest is made here and gets
its record; a file that open(2) makes is made first, and opened by the kernel then.
"""

from __future__ import annotations

import os
import stat

from runner.owners.calls import ANSWERED, Call
from runner.owners.tracee import AT_FDCWD, read_string, umask
from store.owners import RECORD, Record

_MODE = 0o7777


def open(call: Call) -> int | None:  # noqa: A001  # the call's name
    return _open(call, call.at(AT_FDCWD, call.a[0]), call.a[1] & 0xFFFFFFFF, call.a[2])


def openat(call: Call) -> int | None:
    return _open(call, call.at(call.a[0], call.a[1]), call.a[2] & 0xFFFFFFFF, call.a[3])


def creat(call: Call) -> int | None:
    return _open(call, call.at(AT_FDCWD, call.a[0]), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, call.a[1])


def mkdir(call: Call) -> int | None:
    return _mkdir(call, call.at(AT_FDCWD, call.a[0]), call.a[1])


def mkdirat(call: Call) -> int | None:
    return _mkdir(call, call.at(call.a[0], call.a[1]), call.a[2])


def symlink(call: Call) -> int | None:
    return _symlink(call, call.a[0], call.at(AT_FDCWD, call.a[1]))


def symlinkat(call: Call) -> int | None:
    return _symlink(call, call.a[0], call.at(call.a[1], call.a[2]))


def mknod(call: Call) -> int | None:
    return _mknod(call, call.at(AT_FDCWD, call.a[0]), call.a[1], call.a[2])


def mknodat(call: Call) -> int | None:
    return _mknod(call, call.at(call.a[0], call.a[1]), call.a[2], call.a[3])


def _owner(call: Call, path: bytes) -> Record | None:
    """Whose a new file is; None for root's, which needs no record."""
    now = call.world.credentials.of(call.pid)
    uid, gid = now.uids[1], now.gids[1]
    above = os.path.dirname(path) or b"."
    record = call.world.records.read(above, follow=True)
    if record is not None and record.gid != gid and os.stat(above).st_mode & stat.S_ISGID:
        gid = record.gid
    return Record(uid, gid) if uid or gid else None


def _bits(call: Call, mode: int) -> int:
    return mode & _MODE & ~umask(call.pid)


def _open(call: Call, path: bytes, flags: int, mode: int) -> int | None:
    owner = _owner(call, path)
    if owner is None or flags & os.O_DIRECTORY or not call.world.listener.waits(call.cookie):
        return None
    if not flags & os.O_EXCL:
        _make_first(path, _bits(call, mode), owner)
        return None
    made = os.open(path, flags | os.O_CLOEXEC, _bits(call, mode))
    try:
        os.setxattr(b"self/fd/%d" % made, RECORD, owner.encode())
        call.world.listener.give(call.cookie, made, close_on_exec=bool(flags & os.O_CLOEXEC))
    finally:
        os.close(made)
    return ANSWERED


def _make_first(path: bytes, mode: int, owner: Record) -> None:
    try:
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    except OSError:
        return  # it is there, or cannot be made: the kernel says so
    try:
        os.setxattr(made, RECORD, owner.encode())
    finally:
        os.close(made)


def _mkdir(call: Call, path: bytes, mode: int) -> int | None:
    owner = _owner(call, path)
    if owner is None or not call.world.listener.waits(call.cookie):
        return None
    os.mkdir(path, _bits(call, mode))
    os.setxattr(path, RECORD, owner.encode())
    return 0


def _symlink(call: Call, target: int, path: bytes) -> int | None:
    owner = _owner(call, path)
    if owner is None or not call.world.listener.waits(call.cookie):
        return None
    os.symlink(read_string(call.pid, target), path)
    call.world.records.write(path, owner, follow=False)
    return 0


def _mknod(call: Call, path: bytes, mode: int, device: int) -> int | None:
    mode &= 0xFFFFFFFF
    owner = _owner(call, path)
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    if (owner is None and not is_device) or not call.world.listener.waits(call.cookie):
        return None
    if not is_device:
        os.mknod(path, stat.S_IFMT(mode) | _bits(call, mode))
        call.world.records.write(path, owner or Record(0, 0), follow=False)
        return 0
    owner = owner or Record(0, 0)
    made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(made, _bits(call, mode))
        os.setxattr(made, RECORD, Record(owner.uid, owner.gid, mode, device & 0xFFFFFFFF).encode())
    finally:
        os.close(made)
    return 0
