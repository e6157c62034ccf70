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
        for number in (62, 200):
            for pid in (supervisor, builder, 1, -1, -builder, -supervisor):
                first += argument_is(number, 0, pid, errno(1))
        actions[424] = actions[434] = errno(1)
    return program(actions, first=first)
