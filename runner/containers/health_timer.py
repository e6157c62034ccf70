"""When a container is asked whether it is well. Imports only what a bare interpreter has.

Who asks is a process of its own (``probe``), as it needs a whole interpreter and there are tens
of seconds between two questions.
"""

from __future__ import annotations

import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.kept import Kept

STARTING = 3
"""The exit code of ``probe`` while it is still open how the container is."""
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from runner.containers.probe import main; main()"
_SIGKILL = 9


class HealthTimer:
    """Asks in the pauses that ``Kept.pauses_s`` has: usually, at the start, and how long that is."""

    def __init__(self, kept: Kept) -> None:
        assert kept.pauses_s is not None
        self._usual_s, self._first_s, period_s = kept.pauses_s
        self._starting_until_s = kept.began_s + period_s
        self._words = [sys.argv[1], kept.store_root, kept.id]
        self._pid, self._pidfd = 0, -1
        self._due_s = 0.0
        self._wait(starting=True)

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._pidfd,) if self._pid else ()

    def due_ms(self) -> int | None:
        """Until something is to be done without an event."""
        return None if self._pid else max(0, int((self._due_s - time.monotonic()) * 1000) + 1)

    def step(self, events: dict[int, int]) -> None:
        """Ask, or hear that the answer has been written down, when it is time."""
        if self._pid and self._pidfd in events:
            self._wait(starting=self._bury() == STARTING)
        elif not self._pid and time.monotonic() >= self._due_s:
            self._ask()

    def end(self) -> None:
        """The container has ended."""
        if self._pid:
            posix.kill(self._pid, _SIGKILL)
            self._bury()

    def _in_start_period(self) -> bool:
        return time.monotonic() < self._starting_until_s

    def _wait(self, *, starting: bool) -> None:
        self._due_s = time.monotonic() + (self._first_s if starting and self._in_start_period() else self._usual_s)

    def _ask(self) -> None:
        words = [*self._words, "1" if self._in_start_period() else "0"]
        try:
            self._pid = posix.posix_spawn(
                sys.executable, [sys.executable, "-I", "-S", "-c", _PROGRAM, *words], posix.environ
            )
            self._pidfd = posix.pidfd_open(self._pid)
        except OSError:  # no process can be had now
            self._wait(starting=False)

    def _bury(self) -> int:
        code: int = posix.waitstatus_to_exitcode(posix.waitpid(self._pid, 0)[1])
        posix.close(self._pidfd)
        self._pid, self._pidfd = 0, -1
        return code
