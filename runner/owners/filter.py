"""Which system calls the supervisor is asked for: a seccomp program. Pure.

Leave a group out and something real breaks: without set*id apt dies, without get*id it reads
ids again and refuses, without stat shadow loses its group, without create, files that are
made after a privilege drop become root's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import pack
from typing import Final

CHOWN: Final = ("chown", "fchown", "lchown", "fchownat")
STAT: Final = ("stat", "fstat", "lstat", "newfstatat", "statx")
SET_IDS: Final = (
    "setuid", "setgid", "setreuid", "setregid", "setgroups", "setresuid", "setresgid", "setfsuid", "setfsgid",
)  # fmt: skip
GET_IDS: Final = ("getuid", "getgid", "geteuid", "getegid", "getgroups", "getresuid", "getresgid")
CREATE: Final = ("creat", "mkdir", "mkdirat", "symlink", "symlinkat", "mknod", "mknodat")
OPEN: Final = {"open": 1, "openat": 2}
"""Asked for only with O_CREAT in this argument."""
XATTR: Final = ("setxattr", "lsetxattr", "fsetxattr")
RENAME: Final = ("rename", "renameat", "renameat2", "link", "linkat")
"""Asked for only when layers below have owners that no attribute holds."""

ASKED: Final = (*STAT, *CHOWN, *SET_IDS, *GET_IDS, *CREATE, *OPEN, *XATTR, *RENAME, "prctl")
"""Every call that the supervisor must be able to answer."""

_X32_BIT: Final = 0x40000000
ARCHITECTURES: Final = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7}
FAMILIES: Final = {"x86_64": ("x86_64", "x86"), "aarch64": ("aarch64",)}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x50000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ENOSYS: Final = 38
_O_CREAT: Final = 0o100
_PR_SET_KEEPCAPS: Final = 8
_RLIMIT_RTTIME: Final = 15
_NARROW_SUFFIX: Final = "32"
"""i386 has set*id and chown with 16 bits under the plain names: programs use those with 32."""

_Instruction = tuple[int, int, int, int]


def numbers(abi: str) -> dict[str, int]:
    """Call numbers of an architecture by the names that are used here."""
    table: dict[str, int] = json.loads(_TABLE.read_bytes())[abi]
    if abi == "x86":
        wide = {name.removesuffix(_NARROW_SUFFIX): number for name, number in table.items() if name.endswith("32")}
        table = {name: number for name, number in table.items() if name not in STAT or name == "statx"} | wide
    return table


_TABLE: Final = Path(__file__).resolve().parent.parent / "runtime" / "syscalls.json"


def program(machine: str, *, renames: bool) -> bytes:
    """The filter for ``machine`` (``uname -m``), "" when its numbers are not known."""
    instructions: list[_Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for abi in FAMILIES.get(machine, ()):
        section = list(_section(numbers(abi), renames=renames, x32=abi == "x86_64"))
        instructions += _unless(_EQUAL, ARCHITECTURES[abi], section)
    if len(instructions) == 1:
        return b""
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(pack("<HBBI", *instruction) for instruction in instructions)


def _section(table: Mapping[str, int], *, renames: bool, x32: bool) -> Iterator[_Instruction]:
    yield (_LOAD, 0, 0, _NUMBER)
    if x32:
        yield from _unless(_AT_LEAST, _X32_BIT, [(_RETURN, 0, 0, _ALLOW)])
    for name, argument in OPEN.items():
        yield from _call(table, name, _if_any_bit(argument, _O_CREAT))
    yield from _call(table, "prctl", _if_equal(0, _PR_SET_KEEPCAPS, _NOTIFY))
    # nobody but the supervisor may change the limit that says who a process is (PAM resets all of them)
    yield from _call(table, "setrlimit", _if_equal(0, _RLIMIT_RTTIME, _ERRNO))
    yield from _call(table, "prlimit64", [*_if_zero(2), *_if_equal(1, _RLIMIT_RTTIME, _ERRNO)])
    yield from _call(table, "io_uring_setup", [(_RETURN, 0, 0, _ERRNO | _ENOSYS)])  # its calls pass no filter
    for name in (*STAT, *CHOWN, *SET_IDS, *GET_IDS, *CREATE, *XATTR, *(RENAME if renames else ())):
        yield from _call(table, name, [(_RETURN, 0, 0, _NOTIFY)])
    yield (_RETURN, 0, 0, _ALLOW)


def _call(table: Mapping[str, int], name: str, block: list[_Instruction]) -> list[_Instruction]:
    return _unless(_EQUAL, table[name], block) if name in table else []


def _unless(test: int, value: int, block: list[_Instruction]) -> list[_Instruction]:
    """``block``, jumped over when the test fails; it ends in a return."""
    if len(block) < 256:
        return [(test, 0, len(block), value), *block]
    return [(test, 1, 0, value), (0x05, 0, 0, len(block)), *block]


def _if_equal(argument: int, value: int, action: int) -> list[_Instruction]:
    return [(_LOAD, 0, 0, _low(argument)), (_EQUAL, 0, 1, value), (_RETURN, 0, 0, action), (_RETURN, 0, 0, _ALLOW)]


def _if_any_bit(argument: int, bits: int) -> list[_Instruction]:
    return [(_LOAD, 0, 0, _low(argument)), (_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)]


def _if_zero(argument: int) -> list[_Instruction]:
    """Allowed when the pointer is null: the limit is only read."""
    low, high = _low(argument), _low(argument) + 4
    return [(_LOAD, 0, 0, low), (_EQUAL, 0, 3, 0), (_LOAD, 0, 0, high), (_EQUAL, 0, 1, 0), (_RETURN, 0, 0, _ALLOW)]


def _low(argument: int) -> int:
    return _ARGUMENTS + 8 * argument
