"""What the arguments of a step's call mean: paths below its root, its descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runner.isolation.request import StepRequest
from runner.isolation.supervisor import memory
from runner.isolation.supervisor.paths import AT_FDCWD, Root
from runner.isolation.supervisor.procfs import ProcessView
from runner.runtime.notify import Listener, Notification
from store import owners

NOFOLLOW: Final = 0x100
EMPTY_PATH: Final = 0x1000


def fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >= 1 << 31 else number


def by_proc(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class Calls(ProcessView):
    """``program_of`` tells which program of the step a patched copy stands for."""

    def __init__(
        self, listener: Listener, request: StepRequest, first: int, program_of: Callable[[str], str | None]
    ) -> None:
        super().__init__(listener, request.root, first)
        self._tree = Root(request.root)
        self._ids = (request.uid, request.gid)
        self._program_of = program_of

    def _string(self, call: Notification, address: int) -> str:
        return os.fsdecode(memory.read_string(call.pid, address))

    def _path(self, call: Notification, directory: int, address: int) -> str:
        """The path that a call means; by now the caller still is who it was."""
        path = self._string(call, address)
        if not path:
            raise fail(errno.ENOENT)
        path = self._tree.absolute(call.pid, signed(directory), path)
        self._check(call)
        return path

    def _check(self, call: Notification) -> None:
        if not self._listener.waits(call.cookie):
            raise fail(errno.ESRCH)

    def _special(self, call: Notification, path: str) -> str | None:
        return self.real_path(call.pid, path) if path.startswith(("/proc", "/dev/")) else None

    @contextmanager
    def _descriptor(self, call: Notification, number: int) -> Iterator[int]:
        """What a descriptor of the caller's refers to."""
        number = signed(number)
        place = f"/proc/{call.pid}/cwd" if number == AT_FDCWD else f"/proc/{call.pid}/fd/{number}"
        try:
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            raise fail(errno.EBADF) from None
        try:
            self._check(call)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _object(self, call: Notification, directory: int, address: int, flags: int = 0) -> Iterator[int]:
        """What ``path`` relative to ``directory`` is, with the flags of the ``at`` calls."""
        if flags & EMPTY_PATH and not self._string(call, address):
            with self._descriptor(call, directory) as fd:
                yield fd
            return
        with self._tree.found(self._path(call, directory, address), follow=not flags & NOFOLLOW) as fd:
            yield fd

    def _umask(self, pid: int) -> int:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))

    def _made(self, where: int | str, mode: int, needed: int) -> None:
        """Record of a new file what it can't have: the owner, and the mode without the bits ``needed`` here."""
        if self._ids != (0, 0):
            owners.record(where, *self._ids)
        if mode & needed != needed:
            owners.record_mode(where, mode)
