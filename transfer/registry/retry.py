"""When to try again. Reads ``temporary`` and ``retry_after_s`` of an error and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random
from typing import TypeVar

from image.errors import RegistryError
from image.value import dataclass

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Retry:
    """Up to ``attempts`` tries; waits double from ``first_wait_s`` and are spread by ``jitter``.

    ``sleep`` may raise Cancelled to end the waiting. ``jitter`` gives numbers from 0 to 1.
    """

    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random

    def call(self, action: Callable[[], _T]) -> _T:
        """The result of the first try that succeeds. Raises the last error."""
        attempt = 1
        while True:
            try:
                return action()
            except RegistryError as error:
                if not error.temporary or attempt >= self.attempts:
                    raise
                self.sleep(self.wait_s(attempt, error.retry_after_s))
            attempt += 1

    def wait_s(self, attempt: int, asked_s: float | None) -> float:
        """The pause after try number ``attempt``: what the registry asked for, else backing off."""
        if asked_s is not None:
            return min(asked_s, self.longest_wait_s) + self.jitter() * 0.1
        backoff = min(self.first_wait_s * 2.0 ** (attempt - 1), self.longest_wait_s)
        return backoff * (0.5 + self.jitter() / 2)
