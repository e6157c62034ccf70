"""How many requests a host gets at once, how many a second, and none while it said to wait.

Counted is the time until a reply begins. Bodies are not: an upload reads from a download,
and a place that one holds while it waits for the other would end in a deadlock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from image.value import dataclass, field
from transfer.registry.pace import Pace
from transfer.registry.wire import Origin

_LOOK_AGAIN_S: Final = 0.1
"""How long a request waits for its turn before it looks whether it was stopped."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For each host: ``concurrent`` requests at once, and ``per_second`` new ones (0: as many as come)."""

    concurrent: int = 32
    per_second: float = 0.0


class _Host:
    def __init__(self, limits: Limits) -> None:
        self.places = threading.BoundedSemaphore(limits.concurrent)
        self.lock = threading.Lock()
        self.next_s = 0.0


@dataclass(frozen=True, slots=True)
class Gate:
    """``clock`` is monotonic, in seconds."""

    limits: Limits
    clock: Callable[[], float]
    pace: Pace
    hosts: dict[Origin, _Host] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def turn(self, where: Origin, sleep: Callable[[float], None]) -> Iterator[None]:
        """One request's turn. ``sleep`` may raise to end the waiting."""
        with self.lock:
            host = self.hosts.setdefault(where, _Host(self.limits))
        while not host.places.acquire(timeout=_LOOK_AGAIN_S):
            sleep(0)
        try:
            if wait_s := self._wait_s(host):
                sleep(wait_s)
            self.wait(where, sleep)
            yield
        finally:
            host.places.release()

    def wait(self, where: Origin, sleep: Callable[[float], None]) -> None:
        """Until the host may be asked again, if it said to wait."""
        while wait_s := self.pace.wait_s(where):
            sleep(wait_s)

    def _wait_s(self, host: _Host) -> float:
        """Until the next free moment, which is taken."""
        if not self.limits.per_second:
            return 0.0
        with host.lock:
            now_s = self.clock()
            starts_s = max(now_s, host.next_s)
            host.next_s = starts_s + 1 / self.limits.per_second
            return starts_s - now_s
