"""Links of a root filesystem, followed by hand so that they stay inside it.

The tree belongs to an image, so they are hostile. For trees that nobody else changes meanwhile:
every step has a mount or a directory of its own.
"""

from __future__ import annotations

import errno
import os
from typing import Final

_MAX_LINKS: Final = 255


def resolve(root: int, path: str) -> str:
    """``path`` with every link followed inside the root; relative, "" for the root itself.

    What does not exist is kept as written. Raises OSError (ELOOP).
    """
    pending = [part for part in reversed(path.split("/")) if part]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([*done, part])
        target = _link_target(root, here)
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done.clear()
        pending.extend(part for part in reversed(target.split("/")) if part)
    return "/".join(done)


def _link_target(root: int, path: str) -> str | None:
    try:
        return os.readlink(path, dir_fd=root)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT, errno.ENOTDIR}:
            return None
        raise
