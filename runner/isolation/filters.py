"""Seccomp filters of the isolations without namespaces, as bytes for the kernel.

x86-64 alone, with the other entries (32 bit, x32) closed: a call that another number reaches
would pass the supervisor by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

ALLOW: Final = 0x7FFF0000
NOTIFY: Final = 0x7FC00000
TRACE: Final = 0x7FF00000
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_X32: Final = 0x40000000

_LOAD, _RETURN, _JEQ, _JGE = 0x20, 0x06, 0x15, 0x35
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
Instruction = tuple[int, int, int, int]


def errno(code: int) -> int:
    """The action that fails a call; 0 lets it succeed without doing anything."""
    return 0x00050000 | code


def program(actions: Mapping[int, int], *, first: Iterable[Instruction] = (), default: int = ALLOW) -> bytes:
    """A filter by system call number; ``first`` are instructions before, which end at an offset of their own."""
    head: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH), (_JEQ, 1, 0, _AUDIT_ARCH_X86_64), (_RETURN, 0, 0, errno(38)),
        (_LOAD, 0, 0, _NR), (_JGE, 0, 1, _X32), (_RETURN, 0, 0, errno(38)),
    ]  # fmt: skip
    body: list[Instruction] = [(_LOAD, 0, 0, _NR)]
    for number, action in sorted(actions.items()):
        body += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, action)]
    return b"".join(struct.pack("HBBI", *line) for line in (*head, *first, *body, (_RETURN, 0, 0, default)))


def argument_is(number: int, position: int, value: int, action: int) -> list[Instruction]:
    """What happens to a call whose argument (its low 32 bits) has a value."""
    return [
        (_LOAD, 0, 0, _NR), (_JEQ, 0, 3, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * position),
        (_JEQ, 0, 1, value & 0xFFFFFFFF), (_RETURN, 0, 0, action),
    ]  # fmt: skip


# Numbers of x86-64
OPEN, STAT, LSTAT, ACCESS, READLINK, OPENAT, NEWFSTATAT, READLINKAT, FACCESSAT = 2, 4, 6, 21, 89, 257, 262, 267, 269
STATX, OPENAT2, FACCESSAT2 = 332, 437, 439

_UNKNOWN_TO_US: Final = (425, 426, 427, 248, 249, 250, OPENAT2)
"""io_uring (it does calls past any filter), keys, and openat2, whose libc callers fall back."""
_REFUSED: Final = (304, 438, 101, 310, 311, 298, 321, 165, 166, 155, 161, 272, 308, 428, 429, 430, 432, 442)
"""open_by_handle_at, pidfd_getfd, ptrace, process_vm_*, perf, bpf, mounts, chroot, namespaces."""


def chroot_filter(*, supervisor: int, builder: int, landlock_abi: int) -> bytes:
    """For steps in a chroot: /proc and /dev are asked for; what reaches out of it is refused.

    Without landlock's scopes, signals to our own processes are refused by number.
    """
    actions = dict.fromkeys((OPEN, OPENAT, READLINK, READLINKAT), NOTIFY)
    actions |= dict.fromkeys(_UNKNOWN_TO_US, errno(38)) | dict.fromkeys(_REFUSED, errno(1))
    first: list[Instruction] = []
    if landlock_abi < 6:
        first = _no_signals(supervisor, builder)
        actions[424] = actions[434] = errno(1)
    return program(actions, first=first)


def _no_signals(supervisor: int, builder: int) -> list[Instruction]:
    """None by kill, rt_sigqueueinfo, tkill, tgkill and rt_tgsigqueueinfo to our processes, nor to all at once."""
    pids = (supervisor, builder, 1, -1, -builder, -supervisor)
    return [line for call in (62, 129, 200, 234, 297) for pid in pids for line in argument_is(call, 0, pid, errno(1))]


# Calls that the emulation answers; in emulation.py each has a method of this name.
EMULATED: Final[Mapping[int, str]] = {
    2: "open", 4: "stat", 5: "fstat", 6: "lstat", 21: "access", 76: "truncate", 79: "getcwd", 82: "rename",
    83: "mkdir", 84: "rmdir", 85: "creat", 86: "link", 87: "unlink", 88: "symlink", 89: "readlink", 90: "chmod",
    91: "fchmod", 92: "chown", 93: "fchown", 94: "lchown", 132: "utime", 133: "mknod", 137: "statfs",
    191: "getxattr", 192: "getxattr", 194: "listxattr", 195: "listxattr", 235: "utimes", 257: "openat",
    258: "mkdirat", 259: "mknodat", 260: "fchownat", 261: "futimesat", 262: "newfstatat", 263: "unlinkat",
    264: "renameat", 265: "linkat", 266: "symlinkat", 267: "readlinkat", 268: "fchmodat", 269: "faccessat",
    280: "utimensat", 316: "renameat2", 118: "getresuid", 120: "getresgid",
}  # fmt: skip
EXECVE, CHDIR, SOCKET = 59, 80, 41
_GET_IDS: Final = {102: "getuid", 107: "getuid", 104: "getgid", 108: "getgid"}
_SET_IDS: Final = (105, 106, 113, 114, 116, 117, 119, 122, 123, 126)
_GET_GROUPS: Final = 115
_NO_XATTRS: Final = (188, 189, 190, 197, 198, 199)
_ABSENT: Final = (STATX, FACCESSAT2, OPENAT2, 452, 435, 322, 303, 300, 301, 253, 294, 254)
"""statx, faccessat2, openat2, fchmodat2, clone3, execveat, name_to_handle_at, fanotify, inotify: libc
and programs have other ways."""
_NEVER: Final = (153, 167, 168, 163, 134, 313, 175, 176, 169, 170, 171, 424, 434, 440)
_LAST_KNOWN: Final = 462


def emulated_filter(*, is_root: bool, supervisor: int, builder: int, landlock_abi: int) -> bytes:
    """For steps whose root is emulated. A call with a number that we do not know is refused.

    ``is_root`` lets ids be answered by the filter itself. Signals are refused as in a chroot.
    """
    actions = dict.fromkeys(EMULATED, NOTIFY) | {EXECVE: TRACE, CHDIR: TRACE}
    actions |= dict.fromkeys(_GET_IDS, errno(0) if is_root else NOTIFY)
    actions |= dict.fromkeys((*_SET_IDS, _GET_GROUPS), errno(0))
    actions |= dict.fromkeys(_NO_XATTRS, errno(95)) | {193: errno(61), 196: errno(0)}
    actions |= dict.fromkeys(_ABSENT, errno(38)) | dict.fromkeys(_UNKNOWN_TO_US, errno(38))
    actions |= dict.fromkeys((*_REFUSED, *_NEVER), errno(1))
    first = argument_is(SOCKET, 0, 1, errno(97))  # AF_UNIX: landlock does not see a connect() by path
    first += argument_is(53, 0, 0xFFFF, errno(97))
    first += _no_signals(supervisor, builder) if landlock_abi < 6 else []
    first += [(_LOAD, 0, 0, _NR), (0x25, 0, 1, _LAST_KNOWN), (_RETURN, 0, 0, errno(38))]
    return program(actions, first=first)


CALLS: Final[Mapping[int, str]] = {**EMULATED, **_GET_IDS}
