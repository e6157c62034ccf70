"""``--init``: the first process stays, reaps what is left to it and passes signals on. Part of ``child``.

The program becomes its child, in a process group of its own that a terminal's keys reach. When
the program ends the container does, with its code. All that this process may do the program may
do as well: it is confined alike, and holds no descriptor but the container's standard ones.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # built in, where the root is another already
import posix

from runner.runtime.child_process import die_with_watcher
from runner.runtime.child_root import Sandbox
from store.linux import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_NAME = b"tierce-init"
_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR = 3, 2**31 - 1
_FAULTS = {_signal.SIGILL, _signal.SIGTRAP, _signal.SIGABRT, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGSEGV}
"""Of this process itself, which they end."""


def stay_as_init(sandbox: Sandbox, terminal: int) -> None:
    """Returns in the child alone, which is to execute the program.

    Signals are blocked from before the fork on, so that none is lost: the first process of a pid
    namespace gets one without a handler only while it is blocked.
    """
    if not sandbox.detached:
        die_with_watcher(sandbox)
    processes.reset_signals()
    expected = _signal.valid_signals() - _FAULTS
    _signal.pthread_sigmask(_signal.SIG_BLOCK, expected)
    child = posix.fork()
    if child:
        _be_init(child, expected)
    posix.setpgid(0, 0)
    if terminal:
        posix.tcsetpgrp(0, posix.getpgrp())


def _be_init(child: int, expected: set[int]) -> NoReturn:
    """Until the child ends; its exit code, or 128 and the signal that ended it."""
    posix.closerange(_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR)
    _take_name()
    while True:
        number = _signal.sigwait(expected)
        if number != _signal.SIGCHLD:
            _pass_on(child, number)
            continue
        status = _reap(child)
        if status is not None:
            posix._exit(posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else 128 + posix.WTERMSIG(status))


def _reap(child: int) -> int | None:
    """All that have ended, orphans too; the child's wait status if it is among them."""
    found = None
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def _pass_on(child: int, number: int) -> None:
    try:
        posix.kill(child, number)
    except ProcessLookupError:
        return  # its SIGCHLD is next


def _take_name() -> None:
    """For ``ps`` in the container."""
    try:
        fd = posix.open("/proc/self/comm", posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    posix.write(fd, _NAME)
    posix.close(fd)
