"""Bytes that files take on the disk, as ``du`` counts them: blocks, each file once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_BLOCK: Final = 512


def disk_usage(path: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """What a file, or a directory with all in it, takes. What vanishes meanwhile takes nothing.

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
