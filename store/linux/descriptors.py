"""Descriptors: poll(2), ioctl(2), close-on-exec, and how one goes to another process."""

from __future__ import annotations

import _ctypes
import sys

from store.linux.foreign import Bytes, Int, Pointer, UnsignedLong, address, bind, call, copy_of, failure, u32, u64

POLLIN = 1
POLLERR = 8
POLLHUP = 16

# ioctl(2) requests of terminals
TIOCSCTTY = 0x540E
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCSWINSZ = 0x5414

_EINTR = 4
_CLOSE_RANGE_CLOEXEC = 4
_LAST_DESCRIPTOR = 0xFFFFFFFF
_SOL_SOCKET = 1
_SCM_RIGHTS = 1

_ioctl = bind("ioctl", Int, UnsignedLong, Pointer)
_poll = bind("poll", Pointer, UnsignedLong, Int)
_sendmsg = bind("sendmsg", Int, Bytes, Int)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from ``first`` on close-on-exec (close_range, Linux 5.11)."""
    call("close_range", first, _LAST_DESCRIPTOR, _CLOSE_RANGE_CLOEXEC)


def poll(descriptors: dict[int, int], timeout_ms: int = -1) -> dict[int, int]:
    """poll(2): the events of those descriptors that have any, or an empty dict after the timeout."""
    records = copy_of(
        b"".join(
            fd.to_bytes(4, sys.byteorder) + events.to_bytes(2, sys.byteorder) + bytes(2)
            for fd, events in descriptors.items()
        )
    )
    while _poll(address(records), len(descriptors), timeout_ms) < 0:
        if _ctypes.get_errno() != _EINTR:
            raise failure("poll")
    data = bytes(records)
    found = ((fd, int.from_bytes(data[8 * i + 6 : 8 * i + 8], sys.byteorder)) for i, fd in enumerate(descriptors))
    return {fd: events for fd, events in found if events}


def ioctl(fd: int, request: int, argument: int = 0) -> int:
    """ioctl(2) with a number as argument."""
    result: int = _ioctl(fd, request, argument)
    if result < 0:
        raise failure(f"ioctl 0x{request:x}")
    return result


def ioctl_buffer(fd: int, request: int, data: bytes) -> bytes:
    """ioctl(2) with a structure as argument: what the kernel left in it."""
    structure = copy_of(data)
    ioctl(fd, request, address(structure))
    return bytes(structure)


def send_descriptor(socket: int, payload: bytes, fd: int) -> None:
    """Send ``payload`` and a descriptor over a unix socket (SCM_RIGHTS)."""
    control = copy_of(u64(20) + u32(_SOL_SOCKET) + u32(_SCM_RIGHTS) + u32(fd) + bytes(4))
    data = copy_of(payload)
    vector = copy_of(u64(address(data)) + u64(len(payload)))
    header = (
        u64(0) + u64(0)
        + u64(address(vector)) + u64(1)
        + u64(address(control)) + u64(24)
        + u64(0)
    )  # fmt: skip
    if _sendmsg(socket, header, 0) < 0:
        raise failure("sendmsg")
