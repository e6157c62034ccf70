"""Room on the disk: what comes from elsewhere may not take all of it.

A layer says nothing of how large its files are, and a few kilobytes can inflate to any size.
Nothing tells such a bomb from an honest image but that it does not end; so what is written
stops while everybody else on the disk still has some room.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from image.errors import StorageError
from image.paths import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LOOK_EVERY: Final = 1 << 20
_MOST_KEPT: Final = 1 << 30
_SHARE: Final = 100


class Room:
    """What may still be written below ``directory``. For one thread.

    ``keep_free`` bytes stay free, None for a hundredth of the file system and at most a GiB; of
    its inodes too a hundredth stays. 0 is no limit but the disk's own.
    """

    def __init__(self, directory: Path, keep_free: int | None = None) -> None:
        self._directory = directory
        self._keep_free = keep_free
        self._unseen = 0

    def check(self, size: int, what: str) -> None:
        """Raises StorageError when ``what``, of ``size`` bytes, would take too much."""
        if self._keep_free == 0:
            return
        status = os.statvfs(self._directory)
        free = status.f_bavail * status.f_frsize
        keep = self._keep_free
        if keep is None:
            keep = min(status.f_blocks * status.f_frsize // _SHARE, _MOST_KEPT)
        if free - size < keep:
            raise StorageError(
                f"{what} stopped: it would leave less than {keep} bytes free on the disk of {self._directory}:"
                " free space there, choose another root with --root, or set TIERCE_KEEP_FREE to less"
            )
        if status.f_files and status.f_favail < status.f_files // _SHARE:
            raise StorageError(
                f"{what} stopped: hardly any inodes are left on the disk of {self._directory}:"
                " remove files there, choose another root with --root, or set TIERCE_KEEP_FREE=0"
            )

    def take(self, size: int, what: str) -> None:
        """``size`` bytes more are written. Raises StorageError when there is no room for as many again."""
        self._unseen += size
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            self.check(_LOOK_EVERY, what)

    def counted(self, read: Callable[[int], bytes], what: str) -> Callable[[int], bytes]:
        """The same reader, for what is read to be written."""

        def counting(size: int) -> bytes:
            data = read(size)
            self.take(len(data), what)
            return data

        return counting
