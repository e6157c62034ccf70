"""A user's signals, passed on to a container while it runs in the foreground."""

from __future__ import annotations

import os

from image.bare import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final, Self

    from runner.containers.attach import Attachable

_FORWARDED: Final = (
    signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM, signals.SIGUSR1, signals.SIGUSR2, signals.SIGALRM,
)  # fmt: skip
_PATIENCE: Final = 3
"""So many INT or TERM, as docker counts them: then the container is killed."""


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
        self._waker_before = signals.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in _FORWARDED:
            before = signals.getsignal(number)
            if number == signals.SIGHUP and before == signals.SIG_IGN:
                continue  # nohup: ignored on the container's behalf as well
            self._before[number] = before  # INT is ignored after a script's "&", and docker listens all the same
            signals.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signals.signal(number, before if callable(before) or isinstance(before, int) else signals.SIG_DFL)
        signals.set_wakeup_fd(self._waker_before)
        os.close(self._wake)
        os.close(self._waker)

    def forward_to(self, container: Attachable) -> None:
        """From now on, and those that have waited."""
        self._container = container
        for number in self._waiting:
            container.kill(number)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        self._asked += number in (signals.SIGINT, signals.SIGTERM)
        wanted = signals.SIGKILL if self._asked >= _PATIENCE else number
        if self._container is None:
            self._waiting.append(wanted)
        else:
            self._container.kill(wanted)
