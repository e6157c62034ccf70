"""A claim on work: who does it now, so that nobody else does the same beside it.

    <root>/claims/<key>    locked while a process does the work that ``key`` names

A claim is on the work, not on the store: the store stays open to everybody. The kernel ends
it with the process that holds it, however that ends; who waited then does the work itself.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from image.errors import Cancelled
from store.content import storage_errors

_RETRY_S: Final = 0.02


class Claim:
    """A held claim; ``waited`` tells whether somebody else had it before, and may have done the work."""

    def __init__(self, path: Path, fd: int, *, waited: bool) -> None:
        self._path = path
        self._fd = fd
        self.waited = waited

    def release(self) -> None:
        """Let others have it. The second time, nothing."""
        if self._fd < 0:
            return
        with suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = -1


def claim(root: Path, key: str, cancelled: Callable[[], bool]) -> Claim:
    """The claim on ``key`` in the store at ``root``, as soon as nobody else has it: process or thread.

    Raises Cancelled while waiting, StorageError.
    """
    path = root / "claims" / key
    waited = False
    while True:
        with storage_errors(f"claim a build step in {root}"):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            waited = True
            if cancelled():
                raise Cancelled("the build was cancelled while another did the same step") from None
            time.sleep(_RETRY_S)
            continue
        if _is_at(path, fd):
            return Claim(path, fd, waited=waited)
        os.close(fd)  # the holder before us took the file away: what we locked is no longer the claim
        waited = True


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
