"""Commits of git repositories that builds fetched.

    <root>/git/<repository>/<commit>/    a bare repository that holds one commit, shallow

Such a directory appears by one rename, when it is whole, and never changes; it is taken away by
a rename too. So no lock is needed: any number of builds fetch and read side by side. A row of
the build cache keeps it; without one it is garbage.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from store.content import storage_errors
from store.disk_usage import content_size
from store.metadata import CacheRecord, Metadata

_KEPT_COMMITS: Final = 4
"""Commits of one repository that stay; the one used longest ago goes when another comes."""
_MAX_PACKS: Final = 20
"""Packs that a new commit inherits. Beyond, it starts afresh."""


class Repositories:
    """``git/`` under the store's root."""

    def __init__(self, root: Path, metadata: Metadata) -> None:
        self._base = root / "git"
        self._metadata = metadata

    def copy(self, url: str, commit: str, target: Path) -> bool:
        """Make ``target`` a repository with this commit; False when no build fetched it yet."""
        path = self._place(url) / commit
        if not copy_linked(path, target):
            return False
        self._metadata.touch_cached([_key(path)])
        with suppress(FileNotFoundError):
            os.utime(path)
        return True

    def inherit(self, url: str, target: Path) -> bool:
        """Make ``target`` start from what was fetched of a repository last, so that only what is new must come."""
        for path in _newest_first(self._place(url)):
            if len(list((path / "objects" / "pack").glob("*.pack"))) <= _MAX_PACKS and copy_linked(path, target):
                return True
        return False

    def adopt(self, fresh: Path, url: str, commit: str, label: str) -> None:
        """Keep a repository that was just fetched. Another build may have been first: it has the same."""
        place = self._place(url)
        with storage_errors(f"keep {label}"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._metadata.add_cached(CacheRecord(_key(place / commit), None, None, None, content_size(fresh), label))
            with suppress(FileExistsError, OSError):
                os.rename(fresh, place / commit)
        for path in _newest_first(place)[_KEPT_COMMITS:]:
            self._metadata.remove_cached([_key(path)])
            _remove(path)

    def collect(self) -> int:
        """Remove what no row keeps; the bytes it took."""
        kept = {record.key for record in self._metadata.cache()}
        size = 0
        for place in _directories(self._base):
            for path in _directories(place):
                if _key(path) not in kept:
                    size += content_size(path)
                    _remove(path)
            with suppress(OSError):  # others are in it
                place.rmdir()
        return size

    def _place(self, url: str) -> Path:
        return self._base / hashlib.sha256(url.encode()).hexdigest()[:32]


def _key(path: Path) -> str:
    return f"git-{path.parent.name}-{path.name}"


def copy_linked(source: Path, target: Path) -> bool:
    """A repository of its own that shares the objects, which git never changes; False if it went meanwhile."""
    if not source.is_dir():
        return False
    try:
        shutil.copytree(source, target, copy_function=_link_or_copy)
    except (FileNotFoundError, shutil.Error):
        shutil.rmtree(target, ignore_errors=True)
        return False
    return True


def _link_or_copy(source: str, target: str) -> None:
    if "/objects/" in source:
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    """By a rename first: nobody ever finds half a repository under a commit's name."""
    with suppress(OSError):
        gone = path.rename(path.with_name(f".{path.name}-{secrets.token_hex(4)}"))
        shutil.rmtree(gone, ignore_errors=True)


def _newest_first(place: Path) -> list[Path]:
    return sorted((path for path in _directories(place) if not path.name.startswith(".")), key=_age, reverse=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _directories(path: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from [child for child in path.iterdir() if child.is_dir()]
