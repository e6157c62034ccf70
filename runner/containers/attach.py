"""A user's terminal and signals, tied to a container while it runs in the foreground."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager

from image.value import dataclass
from runner.containers import terminal
from runner.containers.relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Final, Protocol, Self

    class Attachable(Protocol):
        """A container that runs."""

        console: int | None

        def kill(self, number: int) -> None: ...

        def resize(self, rows: int, columns: int) -> None: ...


_FORWARDED: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
_PATIENCE: Final = 3
"""So many INT or TERM, as docker counts them: then the container is killed."""


@dataclass(frozen=True, slots=True)
class UserStdio:
    """The user's descriptors."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


OWN_STDIO: Final = UserStdio()


@contextmanager
def window(container: Attachable, user: UserStdio, relay: Relay, *, interactive: bool) -> Iterator[None]:
    """Our terminal as a window on the container's: its bytes, its size and, interactive, its keys."""
    console = container.console
    assert console is not None
    relay.add_output(console, user.stdout)

    def resized(_number: int, _frame: FrameType | None) -> None:
        size = terminal.size(user.stdout, user.stdin)
        if size:
            container.resize(*size)

    with ExitStack() as held:
        if interactive:
            relay.set_input(user.stdin, console, close_at_end=False)
            if os.isatty(user.stdin):
                held.enter_context(terminal.raw_mode(user.stdin))
        before = signal.signal(signal.SIGWINCH, resized)
        held.callback(signal.signal, signal.SIGWINCH, before)
        resized(0, None)  # it may have changed since the container was planned
        yield


class Signals:
    """Signals for us are for the container; those from before its start wait for it.

    ``fileno`` is readable after a signal: a loop that polls it cannot go to sleep between the
    signal's arrival and its handler.
    """

    def __init__(self) -> None:
        self._container: Attachable | None = None
        self._waiting: list[int] = []
        self._before: dict[int, object] = {}
        self._asked = 0
        self._wake, self._waker = -1, -1
        self._waker_before = -1

    def fileno(self) -> int:
        return self._wake

    def __enter__(self) -> Self:
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._waker_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in _FORWARDED:
            before = signal.getsignal(number)
            if number == signal.SIGHUP and before is signal.SIG_IGN:
                continue  # nohup: ignored on the container's behalf as well
            self._before[number] = before  # INT is ignored after a script's "&", and docker listens all the same
            signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if callable(before) or isinstance(before, int) else signal.SIG_DFL)
        signal.set_wakeup_fd(self._waker_before)
        os.close(self._wake)
        os.close(self._waker)

    def forward_to(self, container: Attachable) -> None:
        """From now on, and those that have waited."""
        self._container = container
        for number in self._waiting:
            container.kill(number)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self._container is None:
            self._waiting.append(number)
            return
        self._asked += number in (signal.SIGINT, signal.SIGTERM)
        self._container.kill(signal.SIGKILL if self._asked >= _PATIENCE else number)
