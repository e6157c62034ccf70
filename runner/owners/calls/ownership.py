"""chown and its kin: the real one to root first, then the record.

The real call gives the true error, copies the file up from its layer, takes set-id bits away
and sets the time of change. The record is read before, as a copy has another inode.
"""

from __future__ import annotations

import errno
import os

from runner.owners.calls import Call
from runner.owners.tracee import AT_FDCWD, AT_SYMLINK_NOFOLLOW, descriptor, read_string
from store.owners import RECORD, Record

_LEAVE = 0xFFFFFFFF


def chown(call: Call) -> int:
    return _chown(call, call.at(AT_FDCWD, call.a[0]), call.a[1], call.a[2], follow=True)


def lchown(call: Call) -> int:
    return _chown(call, call.at(AT_FDCWD, call.a[0]), call.a[1], call.a[2], follow=False)


def fchown(call: Call) -> int:
    return _chown(call, descriptor(call.pid, call.a[0]), call.a[1], call.a[2], follow=True)


def fchownat(call: Call) -> int:
    path = call.at(call.a[0], call.a[1])
    if not path:
        return _chown(call, descriptor(call.pid, call.a[0]), call.a[2], call.a[3], follow=True)
    return _chown(call, path, call.a[2], call.a[3], follow=not call.a[4] & AT_SYMLINK_NOFOLLOW)


def _chown(call: Call, path: bytes, uid: int, gid: int, *, follow: bool) -> int:
    uid, gid = uid & _LEAVE, gid & _LEAVE
    known = call.world.records.read(path, follow=follow) or Record(0, 0)
    if not call.world.listener.waits(call.cookie):
        return 0  # the pid may be another's by now
    try:
        os.chown(path, -1 if uid == _LEAVE else 0, -1 if gid == _LEAVE else 0, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    owner = (known.uid if uid == _LEAVE else uid, known.gid if gid == _LEAVE else gid)
    call.world.records.write(path, Record(*owner, known.mode, known.device), follow=follow)
    return 0


def setxattr(call: Call) -> int | None:
    """A tool that copies attributes must not copy an owner; chown sets those."""
    return 0 if read_string(call.pid, call.a[1]) == RECORD else None


def rename(call: Call) -> None:
    """Also link: the first path is what moves or is linked."""
    call.world.records.carry(call.at(AT_FDCWD, call.a[0]))


def renameat(call: Call) -> None:
    call.world.records.carry(call.at(call.a[0], call.a[1]))
