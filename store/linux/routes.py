"""Interfaces, addresses and routes of a network namespace: rtnetlink(7)."""

from __future__ import annotations

import posix
import sys

from store.linux.foreign import Int, SyscallError, bind, failure

_AF_NETLINK = 16
_SOCK_RAW_CLOEXEC = 3 | 0o2000000
_NLMSG_ERROR = 2
_REPLY_SIZE = 65536

_socket = bind("socket", Int, Int, Int)


def route_requests(messages: tuple[bytes, ...]) -> None:
    """Send rtnetlink requests of the caller's network namespace, each with NLM_F_ACK, in order.

    Raises at the first one that the kernel refuses.
    """
    fd: int = _socket(_AF_NETLINK, _SOCK_RAW_CLOEXEC, 0)
    if fd < 0:
        raise failure("socket")
    try:
        for message in messages:
            posix.write(fd, message)
            reply = posix.read(fd, _REPLY_SIZE)
            code = int.from_bytes(reply[16:20], sys.byteorder, signed=True)
            if int.from_bytes(reply[4:6], sys.byteorder) == _NLMSG_ERROR and code:
                raise SyscallError(-code, "rtnetlink")
    finally:
        posix.close(fd)
