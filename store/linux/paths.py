"""Paths, and what is said of a file: openat2(2), statx(2), extended attributes."""

from __future__ import annotations

import posix

from store.linux.foreign import Bytes, Pointer, SyscallError, UnsignedLong, address, bind, call, space, u64

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# openat2(2)
O_PATH = 0x200000
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_OPENAT2_ATTEMPTS = 1000
_EAGAIN = 11

_STATX_SIZE = 256
_STAT_SIZE = 144 if posix.uname().machine == "x86_64" else 128
_MOST_OF_AN_ATTRIBUTE = 255

_getxattr = bind("getxattr", Bytes, Bytes, Pointer, UnsignedLong)
_lgetxattr = bind("lgetxattr", Bytes, Bytes, Pointer, UnsignedLong)
_attribute = space(_MOST_OF_AN_ATTRIBUTE + 1)


def openat2(directory: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), close-on-exec: the way to follow a hostile path without leaving ``directory``.

    The kernel gives up on a ``..`` in the path when anything on the machine was mounted or renamed
    meanwhile (EAGAIN), which twenty containers at once make likely: it is asked again.
    """
    how = u64(flags | posix.O_CLOEXEC) + u64(mode) + u64(resolve)
    for _ in range(_OPENAT2_ATTEMPTS - 1):
        try:
            return call("openat2", directory, path, how, len(how), path=path)
        except SyscallError as error:
            if error.errno != _EAGAIN:
                raise
    return call("openat2", directory, path, how, len(how), path=path)


def statx(directory: int, path: bytes, flags: int, mask: int) -> bytes:
    """The ``struct statx`` (256 bytes) of a path, which tells the time of birth too."""
    found = space(_STATX_SIZE)
    call("statx", directory, path, flags, mask, Pointer(address(found)), path=path)
    return bytes(found)


def fstatat(directory: int, path: bytes, flags: int) -> bytes:
    """``struct stat`` as the kernel has it on this architecture."""
    found = space(_STAT_SIZE)
    call("newfstatat", directory, path, Pointer(address(found)), flags, path=path)
    return bytes(found)


def get_xattr(path: bytes, name: bytes, *, follow: bool) -> bytes | None:
    """An attribute of at most 255 bytes; None when there is none, or no such file. Cheaper than an exception."""
    size: int = (_getxattr if follow else _lgetxattr)(path, name, address(_attribute), _MOST_OF_AN_ATTRIBUTE)
    return bytes(_attribute)[:size] if size > 0 else None
