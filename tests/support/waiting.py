"""Waiting for what is meant, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(happens: Callable[[], bool], timeout_s: float = 20) -> None:
    """Fails the test when it has not happened after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.03)
