"""Directories that outlive builds: what ``RUN --mount=type=cache`` mounts.

    <root>/cache-mounts/<key>/id          what the user called it
    <root>/cache-mounts/<key>/<n>.lock    locked while a step has <n> mounted
    <root>/cache-mounts/<key>/<n>/        the files; only ``private`` sharing makes more than one

Another mode or owner is another key, as in BuildKit. A lock belongs to a step that runs: that
is what ``sharing`` asks for, and it ends with the process that holds it.

Spec: dockerfile.md 1.6 and 4 (sharing).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from image.errors import Cancelled
from image.value import dataclass
from store.content import replace_file, storage_errors
from store.disk_usage import content_size
from store.owners import owners

Sharing = Literal["shared", "private", "locked"]
_RETRY_S: Final = 0.05


def mount_key(cache_id: str, *, mode: int, uid: int, gid: int) -> str:
    """What names a cache mount, here and in exported caches."""
    return hashlib.sha256(f"{cache_id}\0{mode:o}\0{uid}\0{gid}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """One directory. ``size`` in bytes of its files; ``used_s`` when a step last had it."""

    key: str
    id: str
    path: Path
    size: int
    used_s: float


class CacheMounts:
    """All cache directories of a store."""

    def __init__(self, root: Path) -> None:
        self._root = root / "cache-mounts"

    @contextmanager
    def acquire(
        self,
        cache_id: str,
        sharing: Sharing,
        *,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        fill: Callable[[Path], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Path]:
        """The directory for a step, while it runs.

        ``locked`` waits until nobody else has it, ``private`` takes another one instead, ``shared``
        has it together with other ``shared`` steps. ``fill`` puts the first content in.

        Raises Cancelled while waiting, StorageError.
        """
        key = mount_key(cache_id, mode=mode, uid=uid, gid=gid)
        place = self._root / key
        with storage_errors(f"open cache mount {cache_id}"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (place / "id").exists():
                replace_file(place / "id", cache_id.encode("utf-8", "surrogateescape"))
        number, fd = _lock_one(place, sharing, cancelled)
        try:
            path = place / str(number)
            with storage_errors(f"open cache mount {cache_id}"):
                if not path.exists():
                    _make(path, mode, uid, gid, fill)
            yield path
            with suppress(OSError):
                os.utime(place / f"{number}.lock")
        finally:
            os.close(fd)

    def directories(self, *, sizes: bool = True) -> list[CacheDirectory]:
        """What there is. Without ``sizes`` these are 0 and no file is looked at."""
        found: list[CacheDirectory] = []
        with suppress(FileNotFoundError):
            for place in sorted(self._root.iterdir()):
                name = (place / "id").read_text(errors="surrogateescape") if (place / "id").exists() else place.name
                for lock in place.glob("*.lock"):
                    path = lock.with_suffix("")
                    if path.is_dir():
                        found.append(
                            CacheDirectory(
                                place.name, name, path, content_size(path) if sizes else 0, lock.stat().st_mtime
                            )
                        )
        return found

    def in_use(self, directory: CacheDirectory) -> bool:
        """Whether a step has it now."""
        try:
            fd = os.open(directory.path.with_suffix(".lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    def remove(self, directory: CacheDirectory) -> bool:
        """Delete one unless a step has it; False then."""
        fd = os.open(directory.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_lock(fd, fcntl.LOCK_EX):
                return False
            shutil.rmtree(directory.path, ignore_errors=True)
            return True
        finally:
            os.close(fd)


def _lock_one(place: Path, sharing: Sharing, cancelled: Callable[[], bool]) -> tuple[int, int]:
    """The number of a directory and the descriptor that holds its lock."""
    number = 0
    while True:
        fd = os.open(place / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(fd, fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX):
            return number, fd
        os.close(fd)
        if cancelled():
            raise Cancelled("the build was cancelled while it waited for a cache mount")
        if sharing == "private":
            number += 1
        else:
            time.sleep(_RETRY_S)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(path: Path, mode: int, uid: int, gid: int, fill: Callable[[Path], None] | None) -> None:
    """A new directory that appears filled, or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    if fill is not None:
        fill(temporary)
    fd = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owners().own(fd, uid, gid)
    finally:
        os.close(fd)
    temporary.chmod(mode)
    try:
        temporary.rename(path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # another shared step was first
        if not path.is_dir():
            raise
