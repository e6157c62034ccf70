"""What an upper directory changes in the tree below it, as ``docker diff`` lists it.

Both trees are hostile, as a container wrote the upper one: they are walked by directory
descriptors and never through a link. Below is asked only where both have a directory, so a
path there leads through directories alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from image.errors import StorageError
from image.value import dataclass, field
from store.directories import OPEN_DIRECTORY, Descent, open_root
from store.opaque import is_opaque

ChangeKind = Literal["A", "C", "D"]
_WHITEOUT: Final = os.makedev(0, 0)


@dataclass(frozen=True, slots=True)
class Change:
    """A path, relative to the root, that was added, changed or deleted."""

    kind: ChangeKind
    path: bytes


@dataclass(slots=True)
class _Level:
    """A directory on the way down.

    ``merged``: the tree below has a directory here too, and its walk has come along. ``gone``
    are names that it has and that are hidden. ``slight``: the directory is new or only its time
    has changed, so that it may be there for stubs alone.
    """

    path: bytes
    merged: bool
    left: list[bytes]
    gone: frozenset[bytes]
    own: Change | None = None
    slight: bool = False
    found: list[Change] = field(default_factory=list)


def changes(upper: Path, below: int, *, stubs: Collection[bytes] = ()) -> list[Change]:
    """What ``upper``, in overlay form, changes in the merged tree ``below``; each directory before what is in it.

    A directory counts as changed when its attributes differ or something in it was changed.
    Every other thing in ``upper`` counts, though its content be the same, as it would be in a
    layer. ``stubs`` are paths where something may have been made to mount over: what is empty
    there and has nothing below it is no change. Raises StorageError.
    """
    try:
        with Descent(open_root(upper)) as above, Descent(open_root(below)) as under:
            hidden = frozenset(path for path in stubs if _is_stub(above.fd, under.fd, path))
            return _Walk(above, under, hidden).run()
    except OSError as error:
        raise StorageError(f"cannot compare {upper}: {(error.strerror or str(error)).lower()}") from error


def stubs_in(upper: Path, below: int, stubs: Collection[bytes]) -> frozenset[bytes]:
    """Those of ``stubs`` that are there only to be mounted over: empty, with nothing below. Raises StorageError."""
    try:
        top = open_root(upper)
        try:
            return frozenset(path for path in stubs if _is_stub(top, below, path))
        finally:
            os.close(top)
    except OSError as error:
        raise StorageError(f"cannot look into {upper}: {(error.strerror or str(error)).lower()}") from error


class _Walk:
    """Two descents, the second as far as it has the directories of the first."""

    def __init__(self, above: Descent, under: Descent, hidden: frozenset[bytes]) -> None:
        self._above = above
        self._under = under
        self._hidden = hidden

    def run(self) -> list[Change]:
        levels = [self._level(b"", merged=True)]
        while True:
            level = levels[-1]
            if level.left:
                entered = self._step(level, level.left.pop())
                if entered is not None:
                    levels.append(entered)
                continue
            levels.pop()
            if not levels:
                return level.found
            levels[-1].found += self._summed(level)
            self._above.up()
            if level.merged:
                self._under.up()

    def _level(self, path: bytes, *, merged: bool) -> _Level:
        """The directory that the descents are in now."""
        fd = self._above.fd
        names = {os.fsencode(name) for name in os.listdir(fd)}
        gone: set[bytes] = set()
        if merged and path and is_opaque(fd, os.listxattr(fd)):
            gone = {os.fsencode(name) for name in os.listdir(self._under.fd)} - names
        return _Level(path, merged, sorted(names | gone, reverse=True), frozenset(gone))

    def _step(self, level: _Level, name: bytes) -> _Level | None:
        """Note one name of a directory; its level when it is a directory itself, which is then entered."""
        path = b"%b/%b" % (level.path, name) if level.path else name
        if path in self._hidden:
            return None
        if name in level.gone:
            level.found.append(Change("D", path))
            return None
        status = os.stat(name, dir_fd=self._above.fd, follow_symlinks=False)
        before = _lstat(self._under.fd, name) if level.merged else None
        if stat.S_ISDIR(status.st_mode):
            return self._enter(path, name, status, before)
        if not _is_whiteout(status):
            level.found.append(Change("A" if before is None else "C", path))
        elif before is not None:
            level.found.append(Change("D", path))
        return None

    def _enter(self, path: bytes, name: bytes, status: os.stat_result, before: os.stat_result | None) -> _Level:
        merged = before is not None and stat.S_ISDIR(before.st_mode)
        self._above.down(name)
        if merged:
            self._under.down(name)
        level = self._level(path, merged=merged)
        if before is None:
            level.own, level.slight = Change("A", path), True
        elif _attributes(before) != _attributes(status) or before.st_mtime_ns != status.st_mtime_ns:
            level.own, level.slight = Change("C", path), _attributes(before) == _attributes(status)
        return level

    def _summed(self, level: _Level) -> Iterator[Change]:
        """What a finished directory adds to the one above."""
        if level.found or (level.own is not None and not (level.slight and self._holds_stubs(level))):
            yield level.own or Change("C", level.path)
        yield from level.found

    def _holds_stubs(self, level: _Level) -> bool:
        return any(path.startswith(level.path + b"/") for path in self._hidden)


def _is_stub(upper: int, below: int, path: bytes) -> bool:
    """Whether the upper side has something empty at the path, and the tree below nothing."""
    parent, _, name = path.rpartition(b"/")
    with suppress(FileNotFoundError, NotADirectoryError):
        directory = _descend(upper, parent)
        try:
            if not _is_empty(directory, name):
                return False
        finally:
            os.close(directory)
        with suppress(FileNotFoundError, NotADirectoryError):
            directory = _descend(below, parent)
            try:
                return _lstat(directory, name) is None
            finally:
                os.close(directory)
        return True
    return False


def _descend(root: int, path: bytes) -> int:
    """A directory by names alone: O_NOFOLLOW makes a link NotADirectoryError."""
    fd = open_root(root)
    for name in filter(None, path.split(b"/")):
        try:
            child = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def _is_empty(directory: int, name: bytes) -> bool:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0
    if not stat.S_ISDIR(status.st_mode):
        return False
    fd = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)


def _lstat(directory: int, name: bytes) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    return None


def _attributes(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT
