"""stat and its kin: the kernel's answer, with the recorded owner and device in it."""

from __future__ import annotations

import os
import stat as st
from struct import pack_into
from typing import Final

from runner.owners.calls import Call
from runner.owners.tracee import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, descriptor
from store.linux import memory, paths
from store.owners import Record

_STATX_UID, _STATX_GID = 0x08, 0x10
_SIZE: Final = 144


def stat(call: Call) -> int | None:
    return _stat(call, call.at(AT_FDCWD, call.a[0]), call.a[1], follow=True)


def lstat(call: Call) -> int | None:
    return _stat(call, call.at(AT_FDCWD, call.a[0]), call.a[1], follow=False)


def fstat(call: Call) -> int | None:
    return _stat(call, descriptor(call.pid, call.a[0]), call.a[1], follow=True)


def newfstatat(call: Call) -> int | None:
    path = call.at(call.a[0], call.a[1])
    if path:
        return _stat(call, path, call.a[2], follow=not call.a[3] & AT_SYMLINK_NOFOLLOW)
    return _stat(call, descriptor(call.pid, call.a[0]), call.a[2], follow=True) if call.a[3] & AT_EMPTY_PATH else None


def statx(call: Call) -> int | None:
    flags, mask = call.a[2] & 0xFFFFFFFF, call.a[3] & 0xFFFFFFFF
    path = call.at(call.a[0], call.a[1]) if call.a[1] else b""
    follow = not flags & AT_SYMLINK_NOFOLLOW
    if not path:
        if not flags & AT_EMPTY_PATH:
            return None
        path, follow = descriptor(call.pid, call.a[0]), True
    record = call.world.records.read(path, follow=follow)
    if record is None:
        return None
    kept = flags & ~AT_EMPTY_PATH & ~(AT_SYMLINK_NOFOLLOW if follow else 0)
    memory.write_memory(call.pid, call.a[4], _patched_statx(paths.statx(paths.AT_FDCWD, path, kept, mask), record))
    return 0


def _patched_statx(found: bytes, record: Record) -> bytes:
    data = bytearray(found)
    mask = int.from_bytes(found[:4], "little")
    if mask & _STATX_UID:
        pack_into("=I", data, 20, record.uid)
    if mask & _STATX_GID:
        pack_into("=I", data, 24, record.gid)
    if record.mode:
        pack_into("=H", data, 28, int.from_bytes(found[28:30], "little") & 0o7777 | st.S_IFMT(record.mode))
        pack_into("=II", data, 128, os.major(record.device), os.minor(record.device))
    return bytes(data)


def _stat(call: Call, path: bytes, address: int, *, follow: bool) -> int | None:
    record = call.world.records.read(path, follow=follow)
    if record is None:
        return None
    data = bytearray(paths.fstatat(paths.AT_FDCWD, path, 0 if follow else AT_SYMLINK_NOFOLLOW))
    mode_at, owner_at, device_at = (24, 28, 40) if len(data) == _SIZE else (16, 24, 32)
    pack_into("=II", data, owner_at, record.uid, record.gid)
    if record.mode:
        mode = int.from_bytes(data[mode_at : mode_at + 4], "little")
        pack_into("=I", data, mode_at, mode & 0o7777 | st.S_IFMT(record.mode))
        pack_into("=Q", data, device_at, record.device)
    memory.write_memory(call.pid, address, bytes(data))
    return 0
