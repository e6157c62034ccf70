"""The sockets of a container's published ports while it runs: which of them take connections.

They belong to the process that watches over the container. Its record names them, so whoever changes
the container's networks gets at the same sockets without its help.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from runner.network.ports import Port, refused
from store.linux.processes import pidfd_getfd

_BACKLOG: Final = 128


def open_alone(holder: Sequence[int], wanted: Sequence[Port]) -> None:
    """Of these TCP sockets, those of the ``wanted`` ports take connections, the others refuse them.

    ``holder`` is the pid of the process, and its descriptors. One that is shut leaves its number to
    others. Where the kernel does not let us at the sockets they stay as they are. Raises PortInUse
    where another program has a wanted port by now.
    """
    ports = {(port.host_address, port.host_port): port for port in wanted if port.protocol == "tcp"}
    if not holder:
        return
    with suppress(OSError):
        pidfd = os.pidfd_open(holder[0])
        try:
            for fd in holder[1:]:
                _open_or_shut(pidfd_getfd(pidfd, fd), ports)
        finally:
            os.close(pidfd)


def _open_or_shut(fd: int, ports: dict[tuple[str, int], Port]) -> None:
    with socket.socket(fileno=fd) as held:
        if held.type != socket.SOCK_STREAM:
            return
        address, number = held.getsockname()[:2]
        port = ports.get((address, number))
        if port is None:
            if held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # shut twice, its next connections were too
                held.shutdown(socket.SHUT_RDWR)
            return
        try:
            _bind_again(held)
            held.listen(_BACKLOG)
        except OSError as error:
            raise refused(port, error) from error


def _bind_again(shut: socket.socket) -> None:
    """A number that the kernel chose is lost when the socket is shut, and another would be chosen. Raises OSError."""
    try:
        shut.bind(shut.getsockname())
    except OSError as error:
        if error.errno != errno.EINVAL:  # it has its number still
            raise
