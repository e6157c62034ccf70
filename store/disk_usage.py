"""How large a directory is: what it takes on the disk, and what its files hold."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_BLOCK: Final = 512


def disk_usage(path: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Bytes that a file, or a directory with all in it, takes as ``du`` counts them: blocks, each file once.

    What vanishes meanwhile takes nothing.

    ``seen`` remembers files with several links between calls.
    """
    seen = set() if seen is None else seen
    total = 0
    pending = [str(path)]
    while pending:
        place = pending.pop()
        with suppress(OSError):
            status = os.lstat(place)
            total += status.st_blocks
            if os.path.isdir(place) and not os.path.islink(place):
                total += _entries(place, pending, seen)
    return total * _BLOCK


def content_size(path: Path) -> int:
    """Bytes of content of the files in a directory, a file with several names once for each."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def _entries(directory: str, pending: list[str], seen: set[tuple[int, int]]) -> int:
    """Blocks of the files of a directory; its directories are left in ``pending``."""
    blocks = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                key = (status.st_dev, status.st_ino)
                if status.st_nlink > 1:
                    if key in seen:
                        continue
                    seen.add(key)
                blocks += status.st_blocks
    return blocks
