"""Files are opened below the step's root, and handed over."""

from __future__ import annotations

import os
from typing import Final

from runner.isolation.supervisor.calls.call import Calls
from runner.isolation.supervisor.paths import AT_FDCWD
from runner.runtime.notify import Notification

_TMPFILE: Final = 0o20000000
_KNOWN_FLAGS: Final = 0o17777777 | _TMPFILE


class Opening(Calls):
    def do_open(self, call: Notification, path: int, flags: int, mode: int, *_: int) -> None:
        self._open(call, AT_FDCWD, path, flags, mode)

    def do_creat(self, call: Notification, path: int, mode: int, *_: int) -> None:
        self._open(call, AT_FDCWD, path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)

    def do_openat(self, call: Notification, directory: int, path: int, flags: int, mode: int, *_: int) -> None:
        self._open(call, directory, path, flags, mode)

    def _open(self, call: Notification, directory: int, address: int, flags: int, mode: int) -> None:
        path = self._path(call, directory, address)
        place = self._special(call, path)
        if place is not None:
            self._give(call, place, flags)
            return
        fd = self._open_inside(call, path, flags & _KNOWN_FLAGS, mode & 0o7777)
        try:
            self._listener.give(call.cookie, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _open_inside(self, call: Notification, path: str, flags: int, mode: int) -> int:
        waits = not flags & (os.O_NONBLOCK | os.O_PATH)
        asked = flags | os.O_NOCTTY | (os.O_NONBLOCK if waits else 0)  # we must not wait for a FIFO's other end
        if flags & _TMPFILE == _TMPFILE:
            fd = self._tree.open(path, asked, mode | 0o600)
        elif flags & os.O_CREAT:
            fd = self._create(call, path, asked, mode)
        else:
            fd = self._tree.open(path, asked)
        if waits:
            os.set_blocking(fd, True)
        return fd

    def _create(self, call: Notification, path: str, flags: int, mode: int) -> int:
        """An existing file, or a new one with its owner and mode."""
        if not flags & os.O_EXCL:
            try:
                return self._tree.open(path, flags & ~os.O_CREAT)
            except FileNotFoundError:
                pass
        mode &= ~self._umask(call.pid)
        os.umask(0)
        try:
            fd = self._tree.open(path, flags | os.O_EXCL, mode | 0o600)
        except FileExistsError:  # a link that leads nowhere yet
            if flags & os.O_EXCL:
                raise
            fd = self._tree.open(path, flags, mode | 0o600)
        self._made(fd, mode, 0o600)
        return fd
