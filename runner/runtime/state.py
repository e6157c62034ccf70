"""Which containers live: one directory each below the runtime directory, with a locked file.

    <root>/lock                    held for moments, while directories appear and disappear
    <root>/containers/ID/lease     locked (flock) as long as the container or its launcher lives
    <root>/containers/ID/...       files that the container mounts, and what its network holds

The lock belongs to the open file, which the launcher and the watcher share: it ends with the
last of them, however they end. So a directory whose lease can be locked is left over from a
killed process, and ``sweep`` gives it to whoever cleans up.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress

from image.errors import NameInUse, NotPermitted
from image.paths import Path
from runner.runtime.names import check_id, runtime_path
from store.locks import is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def runtime_directory(environ: Mapping[str, str], uid: int) -> Path:
    """``/run/tierce`` for root, else below ``XDG_RUNTIME_DIR``; ``TIERCE_RUNTIME_DIR`` wins."""
    return Path(runtime_path(environ, uid))


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Alone among all processes that use this runtime directory: the descriptor that says so. Never held for long."""
    with _opened(root, "lock") as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd


@contextmanager
def _opened(root: Path, name: str) -> Iterator[int]:
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        fd = os.open(root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise NotPermitted(f"cannot use runtime directory {root}: {why} (set TIERCE_RUNTIME_DIR)") from error
    try:
        yield fd
    finally:
        os.close(fd)


class Lease:
    """A live container's directory. ``fd`` goes to the watcher too."""

    def __init__(self, container_id: str, directory: Path, fd: int) -> None:
        self.container_id = container_id
        self.directory = directory
        self.fd = fd

    def release(self) -> None:
        """Forget the container. Idempotent."""
        if self.fd >= 0:
            from store.directories import discard_tree

            discard_tree(self.directory)
            os.close(self.fd)
            self.fd = -1


def acquire(root: Path, container_id: str) -> Lease:
    """Become the one that runs ``container_id``. Raises NameInUse while another does."""
    directory = root / "containers" / check_id(container_id)
    with locked(root):
        if directory.exists():
            if _is_live(directory):
                raise NameInUse(f"container {container_id} is already running")
            from store.directories import discard_tree

            discard_tree(directory)
        directory.mkdir(mode=0o711, parents=True)
        fd = os.open(directory / "lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    return Lease(container_id, directory, fd)


def live(root: Path) -> tuple[Path, ...]:
    """Directories of containers that live. Call it while ``locked``, or take it as a glance."""
    return tuple(directory for directory in _directories(root) if _is_live(directory))


def stale(root: Path) -> tuple[Path, ...]:
    """Directories left over from killed processes. Call it while ``locked``, or take it as a glance."""
    return tuple(directory for directory in _directories(root) if not _is_live(directory))


def _directories(root: Path) -> list[Path]:
    with suppress(OSError):
        return sorted((root / "containers").iterdir())
    return []


def _is_live(directory: Path) -> bool:
    return is_held(directory / "lease")
