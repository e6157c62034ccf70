"""A process that forks watchers: the far side of ``fork_server``.

It is a bare interpreter with ``child`` loaded. All that it ever holds of a container are the
descriptors of one request, from their arrival to the fork: what the container will do is in orders
that only its watcher reads.

A request is one byte with these descriptors: those that the watcher will have from 0 on (the
standard three, ``child.CONTROL``, ``child.LEASE``), then perhaps a mount namespace to go to. The
answer is the pid, or an errno below zero, in four bytes.
"""

from __future__ import annotations

import _socket
import posix
import sys

from runner.runtime import child
from runner.runtime.child_root import CONTROL
from store.linux import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_FIXED = child.LEASE + 1
_SIZE = 4
"""Bytes of a descriptor and of an answer."""


def main() -> NoReturn:
    """Until the other side has closed the socket."""
    requests = _socket.socket(fileno=CONTROL)
    while received := _receive(requests):
        try:
            # a child of the launcher, which waits for it; so the pid is never that of another process
            pid = processes.clone(processes.CLONE_PARENT)
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            _become_watcher(received)
        for fd in received:
            posix.close(fd)
        requests.sendall(pid.to_bytes(_SIZE, sys.byteorder, signed=True))
    posix._exit(0)


def _receive(requests: _socket.socket) -> list[int]:
    _, ancillary, _, _ = requests.recvmsg(1, _socket.CMSG_SPACE((_FIXED + 1) * _SIZE), _socket.MSG_CMSG_CLOEXEC)
    data = b"".join(data for _, _, data in ancillary)
    return [int.from_bytes(data[at : at + _SIZE], sys.byteorder) for at in range(0, len(data), _SIZE)]


def _become_watcher(received: list[int]) -> NoReturn:
    """They arrived in order, above what we hold ourselves: so none takes the number of one that is still to come."""
    posix.setsid()
    for number, fd in enumerate(received[:_FIXED]):
        posix.dup2(fd, number)
    child.watch(0, *received[_FIXED:])
