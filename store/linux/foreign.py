"""How Python calls C here: the types, the functions of the C library, and their failures.

Foreign functions keep the interpreter lock: a raw ``clone`` is safe in a process with one thread,
and none of the others blocks for long, except ``poll``.
"""

from __future__ import annotations

import _ctypes
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # the checker wants a parameter, which the class does not take when it runs
    from typing import Any

    _Simple = _ctypes._SimpleCData[Any]
else:
    _Simple = _ctypes._SimpleCData

_NUMBERS = {
    "x86_64": {
        "clone": 56,
        "pivot_root": 155,
        "keyctl": 250,
        "ioprio_set": 251,
        "newfstatat": 262,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "sched_setattr": 314,
        "seccomp": 317,
        "bpf": 321,
        "statx": 332,
        "rt_sigaction": 13,
    },
    "aarch64": {
        "clone": 220,
        "pivot_root": 41,
        "keyctl": 219,
        "ioprio_set": 30,
        "newfstatat": 79,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "sched_setattr": 274,
        "seccomp": 277,
        "bpf": 280,
        "statx": 291,
        "rt_sigaction": 134,
    },
}.get(posix.uname().machine, {}) | {
    "open_tree": 428,
    "move_mount": 429,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
"""Those that differ between architectures, and those from 424 on, which are the same everywhere."""

_ENOSYS = 38


class SyscallError(OSError):
    """A system call failed: ``errno``, ``strerror``, ``filename`` as for OSError, and ``syscall``."""

    def __init__(self, errno: int, syscall: str, path: str = "") -> None:
        super().__init__(errno, posix.strerror(errno), path or None)
        self.syscall = syscall

    def __str__(self) -> str:
        return f"{self.syscall}{f' {self.filename}' if self.filename else ''}: {posix.strerror(self.errno or 0)}"


class Int(_Simple):
    _type_ = "i"


class Long(_Simple):
    _type_ = "l"


class UnsignedLong(_Simple):
    _type_ = "L"


class Bytes(_Simple):
    _type_ = "z"


class Pointer(_Simple):
    _type_ = "P"


class Byte(_Simple):
    _type_ = "c"


class _Syscall(_ctypes.CFuncPtr):
    """C calling convention, keeps the interpreter lock, saves errno."""

    _flags_ = 1 | 4 | 8
    _restype_ = Long


class Function(_ctypes.CFuncPtr):
    """The same, for functions whose result is a C int (the upper half is undefined)."""

    _flags_ = 1 | 4 | 8
    _restype_ = Int


_libc = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]  # None is this program and its libc; RTLD_NOW
_syscall = _Syscall(_ctypes.dlsym(_libc, "syscall"))


def bind(name: str, *argtypes: type) -> Function:
    """A function of the C library that returns an int. Its caller raises ``failure`` when that is negative."""
    function = Function(_ctypes.dlsym(_libc, name))
    function.argtypes = argtypes
    return function


def call(name: str, *arguments: int | bytes | Pointer | None, path: bytes | None = None) -> int:
    """A system call by its name, with numbers, strings, structures (as bytes) and addresses.

    Raises SyscallError, which names ``path``; ENOSYS also on an architecture that we have no number for.
    """
    number = _NUMBERS.get(name)
    if number is None:
        raise SyscallError(_ENOSYS, name)
    words = [Long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _syscall(Long(number), *words)
    if result < 0:
        raise failure(name, path)
    return result


def failure(syscall: str, path: bytes | None = None) -> SyscallError:
    """The error of the call that has just failed in this thread."""
    where = "" if path is None else path.decode("utf-8", "surrogateescape")
    return SyscallError(_ctypes.get_errno(), syscall, where)


def copy_of(data: bytes) -> _ctypes.Array[Byte]:
    """A copy whose address can stand in a structure while the object lives."""
    return (Byte * len(data)).from_buffer_copy(data)


def space(size: int) -> _ctypes.Array[Byte]:
    """Zeros for the kernel to write on."""
    return (Byte * size)()


def address(array: _ctypes.Array[Byte]) -> int:
    return _ctypes.addressof(array)


def u32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def u64(value: int) -> bytes:
    return value.to_bytes(8, sys.byteorder)
