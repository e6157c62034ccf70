"""When hosts that said "wait" may be asked again.

One thread is told so (429 and Retry-After); all others of this host must know, and so must
other processes, or each of them learns it by one more refusal. A pause is the modification
time of an empty file: one call to set, one to look, and nothing to go wrong half-way.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import random
from typing import Final

from transfer.registry.wire import Origin

_SPREAD_S: Final = 0.25
"""Those who waited for the same moment do not all come at it."""


class Pace:
    """``longest_s`` bounds every pause. ``clock`` gives seconds since 1970.

    With a ``directory``, which is made when it is first needed, pauses are shared with other
    processes; where nothing can be written there, with the threads of this one alone.
    """

    def __init__(
        self,
        longest_s: float,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random,
    ) -> None:
        self._longest_s = longest_s
        self._directory = directory
        self._clock = clock
        self._jitter = jitter
        self._until: dict[Origin, float] = {}

    def pause(self, where: Origin, seconds: float) -> None:
        """Ask this host nothing for so long, unless a longer pause is on already."""
        until = self._clock() + min(seconds, self._longest_s)
        if until <= max(self._clock(), self._until.get(where, 0.0)):
            return
        self._until[where] = until
        if self._directory is not None:
            with suppress(OSError):
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                path = self._path(self._directory, where)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
                os.utime(path, (until, until))

    def wait_s(self, where: Origin) -> float:
        """How long to wait before the next request; 0.0 for not at all."""
        now = self._clock()
        left = max(self._until.get(where, 0.0), self._shared_until(where, now)) - now
        return min(left, self._longest_s) + _SPREAD_S * self._jitter() if left > 0 else 0.0

    def _shared_until(self, where: Origin, now: float) -> float:
        if self._directory is None:
            return 0.0
        path = self._path(self._directory, where)
        try:
            until = os.stat(path, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0
        if until <= now:
            with suppress(OSError):
                os.unlink(path)
        return until

    @staticmethod
    def _path(directory: Path, where: Origin) -> Path:
        return directory / hashlib.sha256(where.url.encode()).hexdigest()
