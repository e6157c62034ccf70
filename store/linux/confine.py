"""What the isolations that need no namespace call: landlock, ptrace.

Only steps inside unprivileged containers need it, in a process of their own, so it may import what
it likes. Failures are OSError.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

# ptrace(2)
PTRACE_CONT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SEIZE, PTRACE_LISTEN = 7, 12, 13, 0x4206, 0x4208
PTRACE_O_TRACEFORK, PTRACE_O_TRACEVFORK, PTRACE_O_TRACECLONE = 2, 4, 8
PTRACE_O_TRACESECCOMP, PTRACE_O_EXITKILL = 0x80, 0x100000
PTRACE_EVENT_SECCOMP, PTRACE_EVENT_STOP = 7, 128

_SYS_PTRACE, _SYS_FSTATFS, _SYS_SIGNALFD4, _SYS_RENAMEAT2 = 101, 138, 289, 316
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2
_FILE_RIGHTS: Final = 0b1 | 0b10 | 0b100 | 1 << 14 | 1 << 15
"""execute, write, read, truncate, ioctl of devices: what can be allowed on a file."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""

    _fields_ = tuple(
        (name, ctypes.c_ulonglong)
        for name in [
            "r15",
            "r14",
            "r13",
            "r12",
            "rbp",
            "rbx",
            "r11",
            "r10",
            "r9",
            "r8",
            "rax",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "orig_rax",
            "rip",
            "cs",
            "eflags",
            "rsp",
            "ss",
            "fs_base",
            "gs_base",
            "ds",
            "es",
            "fs",
            "gs",
        ]
    )


def _syscall(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(source: int, name: str, target: int, new_name: str, flags: int) -> None:
    _syscall(_SYS_RENAMEAT2, source, os.fsencode(name), target, os.fsencode(new_name), flags)


def child_signals() -> int:
    """A descriptor, non-blocking, that is readable when a child has stopped or ended; SIGCHLD is blocked from now on.

    A handler would interrupt the answer to a call halfway.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    mask = struct.pack("Q", 1 << signal.SIGCHLD - 1)
    return _syscall(_SYS_SIGNALFD4, -1, mask, len(mask), os.O_CLOEXEC | os.O_NONBLOCK)


def fstatfs(fd: int) -> bytes:
    """struct statfs of what a descriptor refers to, O_PATH or not."""
    buffer = ctypes.create_string_buffer(120)
    _syscall(_SYS_FSTATFS, fd, buffer)
    return buffer.raw


def set_file_ids(uid: int, gid: int) -> None:
    """Whose files and processes this thread may use from now on; root may come back. setfsuid(2), setfsgid(2)."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)


# --- landlock -------------------------------------------------------------------------------


def landlock_abi() -> int:
    """The version of landlock, 0 without it."""
    try:
        return _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


class Allowed(NamedTuple):
    """A path and the access below it: ``rw`` all, ``rx`` read and execute, ``r`` read, ``file`` read and write."""

    path: str
    access: str


def landlock(allowed: Sequence[Allowed]) -> None:
    """Confine this process and its children: files as allowed; no signal, no abstract socket to outside.

    Needs no_new_privs or CAP_SYS_ADMIN. Missing paths are skipped.
    """
    abi = landlock_abi()
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    scopes = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if abi >= 6 else 0
    attributes = struct.pack("3Q", rights, 0, scopes)[: 24 if abi >= 6 else 8]
    ruleset = _syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for rule in allowed:
            with suppress(FileNotFoundError):
                _allow(ruleset, rule, rights)
        _syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, rule: Allowed, rights: int) -> None:
    fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    try:
        access = {"rw": rights, "r": 4 | 8, "rx": 1 | 4 | 8, "file": 2 | 4 | 1 << 14 | 1 << 15}[rule.access] & rights
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _FILE_RIGHTS
        _syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, struct.pack("=Qi", access, fd), 0)
    finally:
        os.close(fd)


# --- ptrace ---------------------------------------------------------------------------------


def ptrace(request: int, pid: int, data: object = 0) -> None:
    """ptrace(2) with address 0."""
    _syscall(_SYS_PTRACE, request, pid, 0, data)


def get_registers(pid: int) -> Registers:
    registers = Registers()
    ptrace(PTRACE_GETREGS, pid, ctypes.byref(registers))
    return registers


def set_registers(pid: int, registers: Registers) -> None:
    ptrace(PTRACE_SETREGS, pid, ctypes.byref(registers))
