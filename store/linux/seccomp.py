"""Filters of system calls: seccomp(2). A program is ``struct sock_filter`` records, 8 bytes each."""

from __future__ import annotations

from store.linux.foreign import SyscallError, address, call, copy_of, u32, u64

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32

_EINVAL = 22


def load_seccomp(program: bytes, flags: int = 0) -> int:
    """Install a filter: 0, or the descriptor that a flag asks for. Needs no_new_privs or CAP_SYS_ADMIN."""
    instructions = copy_of(program)
    header = u64(len(program) // 8) + u64(address(instructions))
    return call("seccomp", SECCOMP_SET_MODE_FILTER, flags, header)


def load_seccomp_listener(program: bytes) -> int:
    """Install a filter whose SECCOMP_RET_USER_NOTIF calls wait for the descriptor that this returns.

    Only one filter of a task may have a listener (EBUSY). Calls wait killably once they were
    received where the kernel can (Linux 5.19), so that a signal does not repeat their effects.
    """
    try:
        return load_seccomp(program, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except SyscallError as error:
        if error.errno != _EINVAL:
            raise
    return load_seccomp(program, SECCOMP_FILTER_FLAG_NEW_LISTENER)


def seccomp_has_action(action: int) -> bool:
    """Whether the kernel knows a filter's return action; False also without seccomp."""
    try:
        return call("seccomp", SECCOMP_GET_ACTION_AVAIL, 0, u32(action)) == 0
    except SyscallError:
        return False
