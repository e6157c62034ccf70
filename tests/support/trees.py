"""Directory trees as values, so that two of them can be compared and one be shown to be unchanged."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_LETTERS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "char",
    stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """Everything a tar can say about one path."""

    kind: str
    mode: str
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    content: str = ""
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    twins: tuple[str, ...] = ()
    """Other paths in the tree that are the same inode."""


def read_tree(root: Path) -> dict[str, Node]:
    """Every path below ``root``, and ``root`` itself as ``.``."""
    paths = [root]
    for directory, directories, files in os.walk(root):
        paths += [Path(directory, name) for name in directories + files]
    inodes: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            inodes.setdefault((status.st_dev, status.st_ino), []).append(str(path.relative_to(root)))
    return {str(path.relative_to(root)): _node(path, root, inodes) for path in paths}


def _node(path: Path, root: Path, inodes: dict[tuple[int, int], list[str]]) -> Node:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    name = str(path.relative_to(root))
    content = path.read_bytes() if kind == stat.S_IFREG else b""
    listed = sorted(os.listxattr(path, follow_symlinks=False))
    return Node(
        kind=_LETTERS[kind],
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind == stat.S_IFREG else 0,
        content=hashlib.sha256(content).hexdigest()[:16] if kind == stat.S_IFREG else "",
        link=str(path.readlink()) if kind == stat.S_IFLNK else "",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0),
        xattrs=tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in listed),
        twins=tuple(sorted(twin for twin in inodes.get((status.st_dev, status.st_ino), []) if twin != name)),
    )
