"""set*id, get*id, setgroups: the credentials a process is taken for, by the kernel's rules.

Spec: credentials(7), setresuid(2), setreuid(2).
"""

from __future__ import annotations

import errno
from struct import unpack

from image.value import replace
from runner.owners.calls import Call
from runner.owners.credentials import Credentials
from runner.owners.tracee import write_ids
from store.linux import memory

_LEAVE = 0xFFFFFFFF
_MOST_GROUPS = 65536
Ids = tuple[int, int, int]


def getuid(call: Call) -> int:
    return _of(call).uids[0]


def geteuid(call: Call) -> int:
    return _of(call).uids[1]


def getgid(call: Call) -> int:
    return _of(call).gids[0]


def getegid(call: Call) -> int:
    return _of(call).gids[1]


def getresuid(call: Call) -> int:
    return _write_each(call, _of(call).uids)


def getresgid(call: Call) -> int:
    return _write_each(call, _of(call).gids)


def getgroups(call: Call) -> int:
    groups, room = _of(call).groups, call.a[0] & 0xFFFFFFFF
    if room and room < len(groups):
        return -errno.EINVAL
    if room and groups:
        write_ids(call.pid, call.a[1], groups)
    return len(groups)


def setgroups(call: Call) -> int:
    now, count = _of(call), call.a[0] & 0xFFFFFFFF
    if not now.privileged:
        return -errno.EPERM
    if count > _MOST_GROUPS:
        return -errno.EINVAL
    groups = unpack(f"={count}I", memory.read_memory(call.pid, call.a[1], 4 * count)) if count else ()
    return _become(call, replace(now, groups=groups))


def setresuid(call: Call) -> int:
    return _set_uids(call, _wanted(call.a[:3]))


def setresgid(call: Call) -> int:
    return _set_gids(call, _wanted(call.a[:3]))


def setuid(call: Call) -> int:
    now = _of(call)
    return _set_uids(call, _one(call.a[0] & _LEAVE, privileged=now.privileged))


def setgid(call: Call) -> int:
    now = _of(call)
    return _set_gids(call, _one(call.a[0] & _LEAVE, privileged=now.privileged))


def setreuid(call: Call) -> int:
    return _set_uids(call, _two(_of(call).uids, call.a[0] & _LEAVE, call.a[1] & _LEAVE), saved_follows=True)


def setregid(call: Call) -> int:
    return _set_gids(call, _two(_of(call).gids, call.a[0] & _LEAVE, call.a[1] & _LEAVE), saved_follows=True)


def setfsuid(call: Call) -> int:
    """Never changes: files are made by the effective user here. It returns the one before, as always."""
    return _of(call).uids[1]


def setfsgid(call: Call) -> int:
    return _of(call).gids[1]


def prctl(call: Call) -> None:
    """Asked for PR_SET_KEEPCAPS alone; the kernel does it too."""
    now = _of(call)
    if now.privileged:
        _become(call, replace(now, keeps=bool(call.a[1] & 1)))


def _of(call: Call) -> Credentials:
    return call.world.credentials.of(call.pid)


def _become(call: Call, credentials: Credentials) -> int:
    call.world.credentials.set(call.pid, credentials)
    return 0


def _write_each(call: Call, ids: Ids) -> int:
    for address, value in zip(call.a, ids, strict=False):
        write_ids(call.pid, address, (value,))
    return 0


def _wanted(arguments: tuple[int, ...]) -> Ids:
    first, second, third = (argument & _LEAVE for argument in arguments)
    return first, second, third


def _one(value: int, *, privileged: bool) -> Ids:
    """What setuid(2) means: all three for root, else the effective one."""
    return (value, value, value) if privileged else (_LEAVE, value, _LEAVE)


def _two(now: Ids, real: int, effective: int) -> Ids:
    """What setreuid(2) means for the saved id."""
    saved = _LEAVE
    if real != _LEAVE or (effective not in (_LEAVE, now[0])):
        saved = effective if effective != _LEAVE else now[1]
    return real, effective, saved


def _set_uids(call: Call, wanted: Ids, *, saved_follows: bool = False) -> int:
    now = _of(call)
    if not _allowed(now.uids, wanted, now.privileged, saved_follows=saved_follows):
        return -errno.EPERM
    return _become(call, replace(now, uids=_merged(now.uids, wanted)))


def _set_gids(call: Call, wanted: Ids, *, saved_follows: bool = False) -> int:
    now = _of(call)
    if not _allowed(now.gids, wanted, now.privileged, saved_follows=saved_follows):
        return -errno.EPERM
    return _become(call, replace(now, gids=_merged(now.gids, wanted)))


def _allowed(now: Ids, wanted: Ids, privileged: bool, *, saved_follows: bool) -> bool:
    asked = wanted[:2] if saved_follows else wanted
    return privileged or all(value in (_LEAVE, *now) for value in asked)


def _merged(now: Ids, wanted: Ids) -> Ids:
    first, second, third = (new if new != _LEAVE else old for old, new in zip(now, wanted, strict=True))
    return first, second, third
