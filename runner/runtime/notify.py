"""seccomp user notification: system calls of another process, answered by this one.

A filter that was loaded with ``store.linux.seccomp.load_seccomp_listener`` lets each call that it
gives SECCOMP_RET_USER_NOTIF wait for an answer on the listener's descriptor. Hot: a build
asks tens of thousands of times, so a notification is a plain tuple and buffers are reused.

Spec: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from contextlib import suppress
from struct import Struct
from typing import Final, NamedTuple, Self

RECV: Final = 0xC0502100
SEND: Final = 0xC0182101
ID_VALID: Final = 0x40082102
ADDFD: Final = 0x40182103
SET_FLAGS: Final = 0x40082104

_NOTIFICATION: Final = Struct("=QII iIQ 6Q")
_RESPONSE: Final = Struct("=QqiI")
_ADD_DESCRIPTOR: Final = Struct("=QIIII")
_EMPTY: Final = bytes(_NOTIFICATION.size)
_CONTINUE: Final = 1
_SEND_WITH_DESCRIPTOR: Final = 2
_SYNC_WAKE_UP: Final = 1
_GONE: Final = (errno.ENOENT, errno.EINPROGRESS)
"""The caller was killed; or a signal interrupted it, and it asks anew."""


class Notification(NamedTuple):
    """One call that waits. ``pid`` is as this process sees it; ``arch`` is an AUDIT_ARCH number."""

    cookie: int
    pid: int
    number: int
    arch: int
    arguments: tuple[int, ...]


class Listener:
    """The supervisor's end. Owns the descriptor; a context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with suppress(OSError):  # wake the waiter on this processor (Linux 6.6): half the time of an answer
            fcntl.ioctl(fd, SET_FLAGS, _SYNC_WAKE_UP)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def receive(self) -> Notification | None:
        """The next call; None when no process with the filter is left."""
        while True:
            for _, events in self._poll.poll():
                if events & select.POLLHUP and not events & select.POLLIN:
                    return None
            found = self.take()
            if found is not None:
                return found

    def take(self) -> Notification | None:
        """The call that a poll of ``fd`` has told of; None when the caller has died since."""
        try:
            cookie, pid, _, number, arch, _, *arguments = _NOTIFICATION.unpack(fcntl.ioctl(self.fd, RECV, _EMPTY))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise
            return None
        return Notification(cookie, pid, number, arch, tuple(arguments))

    def waits(self, cookie: int) -> bool:
        """Whether the call still waits: its pid can then not have been given to another process."""
        try:
            fcntl.ioctl(self.fd, ID_VALID, cookie.to_bytes(8, "little"))
        except OSError:
            return False
        return True

    def answer(self, cookie: int, value: int) -> None:
        """The call returns ``value``, or fails with ``-value`` as errno when that is negative."""
        self._send(_RESPONSE.pack(cookie, max(value, 0), min(value, 0), 0))

    def go_on(self, cookie: int) -> None:
        """The kernel performs the call. Never a security decision: the caller may change it meanwhile."""
        self._send(_RESPONSE.pack(cookie, 0, 0, _CONTINUE))

    def give(self, cookie: int, fd: int, *, close_on_exec: bool) -> None:
        """The call returns a copy of ``fd``, made in the waiting process (Linux 5.14)."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        try:
            fcntl.ioctl(self.fd, ADDFD, _ADD_DESCRIPTOR.pack(cookie, _SEND_WITH_DESCRIPTOR, fd, 0, flags))
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise
            if error.errno not in _GONE:
                self.answer(cookie, -(error.errno or errno.EIO))

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self.fd, SEND, response)
        except OSError as error:
            if error.errno not in _GONE:
                raise
