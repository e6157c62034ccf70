"""Several layer directories as one, without copying: files are linked, whiteouts kept where they count.

The directories are in overlay form and no longer change. Nothing in them is followed: what is
descended into was a directory when it was listed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from image.value import dataclass, field
from store.content import storage_errors
from store.opaque import is_opaque, mark_opaque
from store.unpack import OVERLAY_XATTRS

_WHITEOUT: Final = os.makedev(0, 0)


@dataclass(slots=True)
class _Name:
    """What the layers say of one name: a file of the topmost, or directories to be merged."""

    file: os.DirEntry[str] | None = None
    directories: list[str] = field(default_factory=list)
    hides: bool = False
    """Nothing of what is below the layers shows through."""


def merge_layers(layers: Sequence[Path], base: int | None, target: Path) -> None:
    """Fill the empty ``target`` so that over ``base`` it shows what ``layers`` (top first) show.

    ``base`` is a descriptor of the merged tree below, None for nothing. What the layers made
    and removed again leaves no trace. Raises StorageError.
    """
    with storage_errors(f"squash layers into {target}"):
        _Merge(base).directory([str(layer) for layer in layers], "", str(target), below=base is not None)


class _Merge:
    def __init__(self, base: int | None) -> None:
        self._base = base

    def directory(self, sources: list[str], path: str, target: str, *, below: bool) -> None:
        """Fill ``target``. ``below``: the base has a directory at ``path``, whose entries count."""
        pending = [(sources, path, target, below)]
        finished: list[tuple[str, str]] = []
        while pending:
            sources, path, target, below = pending.pop()
            finished.append((sources[0], target))
            for name, found in sorted(_names(sources).items()):
                here = f"{path}/{name}" if path else name
                made = os.path.join(target, name)
                status = self._lstat(here) if below else None
                if found.directories:
                    os.mkdir(made)
                    if found.hides and status is not None:
                        mark_opaque(made)
                    shows = status is not None and stat.S_ISDIR(status.st_mode) and not found.hides
                    pending.append((found.directories, here, made, shows))
                elif found.file is not None:
                    os.link(found.file.path, made, follow_symlinks=False)
                elif status is not None:
                    os.mknod(made, stat.S_IFCHR, _WHITEOUT)
        for source, made in reversed(finished):  # children change their directory's time
            _copy_attributes(source, made)

    def _lstat(self, path: str) -> os.stat_result | None:
        with suppress(OSError):
            return os.stat(path, dir_fd=self._base, follow_symlinks=False)
        return None


def _names(sources: Sequence[str]) -> dict[str, _Name]:
    """What directories of the same path, top first, come to."""
    names: dict[str, _Name] = {}
    closed: set[str] = set()
    for source in sources:
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.name in closed:
                    continue
                found = names.setdefault(entry.name, _Name())
                if entry.is_dir(follow_symlinks=False):
                    found.directories.append(entry.path)
                    found.hides = is_opaque(entry.path)
                else:
                    found.hides = True
                    if not found.directories and not _is_whiteout(entry):
                        found.file = entry
                if found.hides:
                    closed.add(entry.name)
    return names


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT


def _copy_attributes(source: str, target: str) -> None:
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not os.fsencode(name).startswith(OVERLAY_XATTRS):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
