"""A copy that was made before, on another base: its layer is linked, neither copied nor packed again.

What COPY makes follows from what it reads, and of its base from three things only: where the way to
the destination leads, what lies where the layer has something, and the names of users. So when a file
changes, copies further down in the Dockerfile are the same layers as before on a new base.

Files of a layer never change, hence may be shared by layers (``store.squash`` does so, too).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from builder.descent import kept_xattrs
from builder.graph import CopyFiles
from builder.results import Rootfs
from builder.steps.earlier_copy import pass_on
from builder.steps.tree import lstat
from image.value import dataclass
from store.content import storage_errors
from store.inside import resolve
from store.layers import Workspace
from store.metadata import CacheRecord, LayerRecord
from store.opaque import NAMES as OPAQUE
from store.store import Session

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNLINKABLE: Final = {errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP}


@dataclass(frozen=True, slots=True)
class MovedCopy:
    """A layer as ``record`` has it, linked into ``workspace``. ``size`` in bytes, as ``entries`` of ``layer``."""

    workspace: Workspace
    record: CacheRecord
    layer: LayerRecord


def may_move(operation: CopyFiles) -> bool:
    """Whether the layer may be the same on another base: names of users are looked up in the base."""
    return owner_is_known(operation) and not operation.link


def owner_is_known(operation: CopyFiles) -> bool:
    """Whether the base has no word in whom the files belong to."""
    return operation.chown is None or operation.chown.replace(":", "").isdigit()


def move(session: Session, operation: CopyFiles, record: CacheRecord, base: Rootfs) -> MovedCopy | None:
    """The layer of an earlier result on ``base``; None when it is gone, or would be another there.

    Raises KernelError, StorageError.
    """
    layers, blob = session.store.layers, record.blob
    if record.chain_id is None or blob is None or not layers.trees.mounts:
        return None
    if not session.hold_layers(record.chain_id) or not session.reuse(blob.digest):
        return None
    layer = layers.get(record.chain_id)
    with (
        layers.trees.opened(layers.directories_of(layer.parent)) as before,
        layers.trees.opened(base.directories) as now,
        _opened(os.fspath(layers.diff(layer))) as made,
    ):
        with storage_errors("look at an earlier copy"):
            if resolve(before, operation.dest) != resolve(now, operation.dest) or not _fits(made, before, now):
                return None
        workspace = session.workspace(base.top)
        with storage_errors("link the files of an earlier copy"):
            if not _link_all(made, workspace):
                session.discard(workspace)
                return None
            pass_on(layers.diff(layer).parent, workspace.path)
    return MovedCopy(workspace, record, layer)


def _fits(layer: int, before: int, now: int) -> bool:
    """Whether two bases are the same to a layer that was made on one of them. Times apart, as in every key."""
    pending = [""]
    while pending:
        path = pending.pop()
        for child in _children(layer, path):
            here = f"{path}/{child.name}" if path else child.name
            was, found = lstat(before, here), lstat(now, here)
            if was is None and found is None:
                continue  # what is below is the layer's alone
            if was is None or found is None or stat.S_ISDIR(was.st_mode) != stat.S_ISDIR(found.st_mode):
                return False
            if stat.S_ISDIR(was.st_mode):
                if _looks(before, here, was) != _looks(now, here, found):
                    return False
                pending.append(here)
    return True


def _looks(root: int, path: str, status: os.stat_result) -> tuple[object, ...]:
    """What a layer repeats of a directory below it."""
    with _opened(path, root) as fd:
        return status.st_mode, status.st_uid, status.st_gid, kept_xattrs(fd)


def _link_all(layer: int, workspace: Workspace) -> bool:
    """Fill a workspace with the files of a layer; False where files can't have more names."""
    with _opened(os.fspath(workspace.diff)) as target:
        try:
            pending, finished = [""], list[str]()
            while pending:
                path = pending.pop()
                finished.append(path)
                pending += _link_directory(layer, target, path)
        except OSError as error:
            if error.errno in _UNLINKABLE:
                return False
            raise
        for path in reversed(finished[1:]):  # the root's look is the base's; making children changes times
            _copy_look(layer, target, path)
    return True


def _link_directory(layer: int, target: int, path: str) -> Iterator[str]:
    """Link what is in one directory; the paths of those in it, which are made empty."""
    with _opened(path or ".", layer) as source, _opened(path or ".", target) as made:
        for child in _children(source, ""):
            if child.is_dir(follow_symlinks=False):
                os.mkdir(child.name, 0o700, dir_fd=made)
                yield f"{path}/{child.name}" if path else child.name
            else:
                os.link(child.name, child.name, src_dir_fd=source, dst_dir_fd=made, follow_symlinks=False)


def _copy_look(layer: int, target: int, path: str) -> None:
    with _opened(path, layer) as source, _opened(path, target) as made:
        status = os.fstat(source)
        os.fchown(made, status.st_uid, status.st_gid)
        os.fchmod(made, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source):
            if name in OPAQUE or not name.startswith(("trusted.overlay.", "user.overlay.", "security.selinux")):
                os.setxattr(made, name, os.getxattr(source, name))
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def _children(root: int, path: str) -> list[os.DirEntry[str]]:
    with _opened(path or ".", root) as fd, os.scandir(fd) as listing:
        return list(listing)


@contextmanager
def _opened(path: str, root: int | None = None) -> Iterator[int]:
    fd = os.open(path, _OPEN, dir_fd=root)
    try:
        yield fd
    finally:
        os.close(fd)
