"""Paths inside a root filesystem that is open as a directory descriptor.

The tree belongs to an image, so its symbolic links are hostile: they are followed inside the
root (``store.inside``), and what is handed to the kernel has no link left in it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import Final

from image.value import dataclass
from store.inside import resolve
from store.owners import owners


@dataclass(frozen=True, slots=True)
class Owner:
    """Numeric owner of a file."""

    uid: int = 0
    gid: int = 0


ROOT: Final = Owner()


def resolve_parent(root: int, path: str) -> str:
    """Like ``resolve``, but a link in the last place is kept as a link."""
    directory, name = posixpath.split(path.rstrip("/"))
    return posixpath.join(resolve(root, directory), name)


def lstat(root: int, path: str) -> os.stat_result | None:
    """The entry at a resolved path; None when there is none."""
    try:
        return os.stat(path or ".", dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_directories(
    root: int, path: str, owner: Owner, mode: int = 0o755, *, mtime_s: int | None = None, made: set[str] | None = None
) -> str:
    """Make a directory and its missing parents, all with this owner and mode; the resolved path.

    Existing ones are left alone; the paths of the others are added to ``made``. Raises OSError, NotADirectoryError among them.
    """
    resolved = resolve(root, path)
    parts = resolved.split("/") if resolved else []
    for depth in range(1, len(parts) + 1):
        here = "/".join(parts[:depth])
        try:
            os.mkdir(here, dir_fd=root)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(here, dir_fd=root, follow_symlinks=False).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/" + here) from None
            continue
        if made is not None:
            made.add(here)
        owners().own_name(os.fsencode(here), root, owner.uid, owner.gid)
        os.chmod(here, mode, dir_fd=root)
        if mtime_s is not None:
            os.utime(here, (mtime_s, mtime_s), dir_fd=root)
    return resolved


def read_file(root: int, path: str, limit: int) -> bytes | None:
    """At most ``limit`` bytes of a regular file, links followed inside the root; None without one."""
    resolved = resolve(root, path)
    try:
        fd = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(limit) if stat.S_ISREG(os.fstat(fd).st_mode) else None
