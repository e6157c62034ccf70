"""Trees without a mount: a directory that layers are copied into and steps change in place.

One tree serves a stage: after a step it stands for the step's result, and the next step goes
on in it. What a step changed is found by looking at metadata before and after (``snapshot``)
and copied into the workspace in overlay form, so that a layer's bytes are those of an
overlay's upper directory. A tree that is needed in two states at once is made twice.

Nothing else writes to a tree while this module works in it, and each component of a path is
known to be a directory before the next is used: so plain paths are safe here.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final, Self

from image.value import dataclass
from store import recorded
from store.content import storage_errors
from store.inside import resolve
from store.layers import LayerStore, OverlayMount, Workspace
from store.opaque import is_opaque, mark_opaque
from store.unpack import OVERLAY_XATTRS

_CLOCK_TICK_S: Final = 0.01
"""Before Linux 6.13 a change within one tick of the snapshot has the same ctime."""
_PIECE: Final = 1 << 24
_WHITEOUT: Final = os.makedev(0, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells that an entry changed. ``xattrs`` of directories alone: their ctime moves with their entries."""

    ino: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


Snapshot = Mapping[str, Seen]
"""By path below the root."""


def snapshot(root: str, skipped: frozenset[str] = frozenset()) -> dict[str, Seen]:
    """All entries below ``root`` but the paths ``skipped`` and what is below them."""
    found: dict[str, Seen] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(f"{root}/{prefix}") as entries:
            for entry in entries:
                path = prefix + entry.name
                if path in skipped:
                    continue
                status = entry.stat(follow_symlinks=False)
                xattrs: tuple[tuple[str, bytes], ...] = ()
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path + "/")
                    xattrs = _attributes(entry.path)
                found[path] = Seen(
                    status.st_ino, status.st_ctime_ns, status.st_mode, status.st_uid, status.st_gid,
                    status.st_size, status.st_mtime_ns, xattrs,
                )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """Paths, sorted. ``replaced`` directories are other ones under the old name; they are in ``written`` too."""

    written: tuple[str, ...]
    deleted: tuple[str, ...]
    replaced: frozenset[str]


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """What an overlay's upper directory would hold, but for the directories on the way."""
    written = [path for path, seen in after.items() if _changed(before.get(path), seen)]
    replaced = frozenset(
        path for path in written
        if after[path].is_directory and (old := before.get(path)) and old.is_directory and old.ino != after[path].ino
    )  # fmt: skip
    deleted = [path for path in before if path not in after and _is_topmost(path, after, replaced)]
    return Difference(tuple(sorted(written)), tuple(sorted(deleted)), replaced)


def _changed(old: Seen | None, new: Seen) -> bool:
    if old is None or not (old.is_directory and new.is_directory):
        return old != new
    return (old.ino, old.mode, old.uid, old.gid, old.mtime_ns, old.xattrs) != (
        new.ino, new.mode, new.uid, new.gid, new.mtime_ns, new.xattrs
    )  # fmt: skip


def _is_topmost(path: str, after: Snapshot, replaced: frozenset[str]) -> bool:
    """Whether a deletion has to be said: not below one, nor in a directory that is another one now."""
    parent = posixpath.dirname(path)
    if not parent:
        return True
    above = after.get(parent)
    if above is None or not above.is_directory:
        return False
    while parent:
        if parent in replaced:
            return False
        parent = posixpath.dirname(parent)
    return True


class PlainTrees:
    """Implements ``store.trees.Trees``. Safe to use from several threads.

    ``make_directory`` gives an empty directory on the store's file system that goes with the session.
    """

    mounts = False

    def __init__(self, layers: LayerStore, make_directory: Callable[[], Path]) -> None:
        self._layers = layers
        self._make_directory = make_directory
        self._free: list[_Tree] = []
        self._lock = Lock()

    @contextmanager
    def opened(self, directories: Sequence[str], workspace: Workspace | None = None) -> Iterator[int]:
        with self._taken(directories) as tree, _opened(tree.root) as fd:
            if workspace is None:
                yield fd
            else:
                with tree.recorded_in(workspace):
                    yield fd

    @contextmanager
    def rootfs(
        self, directories: Sequence[str], workspace: Workspace, covered: Sequence[str]
    ) -> Iterator[OverlayMount | Path]:
        with (
            self._taken(directories) as tree,
            Cover(tree.root, tree.aside, covered) as cover,
            tree.recorded_in(workspace, frozenset(cover.paths)),
        ):
            yield tree.root

    @contextmanager
    def _taken(self, directories: Sequence[str]) -> Iterator[_Tree]:
        """A tree of this state for one user; whatever state it is in afterwards, the next can have it."""
        tree = self._take(tuple(directories))
        yield tree  # after a failure its state is unknown, so it is not given back
        with self._lock:
            self._free.append(tree)

    def _take(self, directories: tuple[str, ...]) -> _Tree:
        with self._lock:
            below = [tree for tree in self._free if directories[len(directories) - len(tree.state) :] == tree.state]
            best = max(below, key=lambda tree: len(tree.state), default=None)
            if best is not None:
                self._free.remove(best)
        self._layers.form.require()
        tree = best or _Tree(self._make_directory())
        with storage_errors("make a root filesystem of layers"):
            for directory in reversed(directories[: len(directories) - len(tree.state)]):
                apply_layer(self._layers.base / directory / "diff", tree.root)
                tree.state = (directory, *tree.state)
        return tree


class _Tree:
    """A directory and the layer directories that it stands for, top first."""

    def __init__(self, path: Path) -> None:
        self.root = path / "root"
        self.aside = path / "aside"
        self.state: tuple[str, ...] = ()
        self.root.mkdir()
        self.aside.mkdir()

    @contextmanager
    def recorded_in(self, workspace: Workspace, skipped: frozenset[str] = frozenset()) -> Iterator[None]:
        """What is changed meanwhile is in the workspace afterwards."""
        root = os.fspath(self.root)
        with storage_errors("look at a root filesystem"):
            before = snapshot(root, skipped)
            time.sleep(_CLOCK_TICK_S)
        yield
        with storage_errors("store what a step changed"):
            harvest(self.root, before, snapshot(root, skipped), workspace.diff)
        self.state = (workspace.directory, *self.state)


class Cover:
    """Takes paths of a tree out of sight, and brings them back as they were. A context manager.

    Inside, each path is free and its parents exist. Links in a path are followed inside the
    tree. ``paths`` are where they came out, relative to the root. ``aside`` is an empty
    directory on the same file system.
    """

    def __init__(self, root: Path, aside: Path, covered: Sequence[str]) -> None:
        self._root = root
        self._aside = aside
        self._undo: list[Callable[[], None]] = []
        self._covered = covered
        self.paths: list[str] = []

    def __enter__(self) -> Self:
        try:
            with storage_errors("prepare a root filesystem"), _opened(self._root) as root:
                for number, path in enumerate(self._covered):
                    resolved = resolve(root, path)
                    if resolved and not any(_is_below(resolved, other) for other in self.paths):
                        self._hide(resolved, self._aside / str(number))
                        self.paths.append(resolved)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with storage_errors("restore a root filesystem"):
            while self._undo:
                self._undo.pop()()

    def _hide(self, path: str, aside: Path) -> None:
        target = self._root / path
        self._make_parents(path)
        times = os.stat(target.parent)
        existed = os.path.lexists(target)
        if existed:
            os.rename(target, aside)

        def restore() -> None:
            now = os.stat(target.parent)
            remove(target)
            if existed:
                os.rename(aside, target)
            os.utime(target.parent, ns=(now.st_atime_ns, now.st_mtime_ns))

        self._undo.append(restore)
        os.utime(target.parent, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _make_parents(self, path: str) -> None:
        missing: list[str] = []
        parent = posixpath.dirname(path)
        while parent and not os.path.lexists(self._root / parent):
            missing.append(parent)
            parent = posixpath.dirname(parent)
        for directory in reversed(missing):
            self._make_parent(self._root / directory)

    def _make_parent(self, directory: Path) -> None:
        times = os.stat(directory.parent)
        directory.mkdir(mode=0o755)
        os.utime(directory.parent, ns=(times.st_atime_ns, times.st_mtime_ns))

        def remove_empty() -> None:
            now = os.stat(directory.parent)
            with suppress(OSError):
                directory.rmdir()
                os.utime(directory.parent, ns=(now.st_atime_ns, now.st_mtime_ns))

        self._undo.append(remove_empty)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_below(path: str, other: str) -> bool:
    return path == other or path.startswith(other + "/")


# --- layers into a tree ---------------------------------------------------------------------


def apply_layer(diff: Path, root: Path) -> None:
    """Do to the tree ``root`` what a layer directory in overlay form says. Raises OSError."""
    _Copying(os.fspath(diff), os.fspath(root)).merge("")
    recorded.copy_metadata(os.fspath(diff), os.fspath(root))


def harvest(root: Path, before: Snapshot, after: Snapshot, diff: Path) -> None:
    """Copy what changed in ``root`` into the empty ``diff``, in overlay form. Raises OSError."""
    found = difference(before, after)
    copying = _Copying(os.fspath(root), os.fspath(diff))
    for path in found.written:
        copying.parents(path)
        copying.entry(path)
        if path in found.replaced:
            mark_opaque(f"{diff}/{path}")
    for path in found.deleted:
        copying.parents(path)
        os.mknod(f"{diff}/{path}", stat.S_IFCHR, _WHITEOUT)
    copying.set_times()
    recorded.copy_metadata(os.fspath(root), os.fspath(diff))


class _Copying:
    """Entries from one tree to the same places in another; links among them stay links."""

    def __init__(self, source: str, target: str) -> None:
        self._source = source
        self._target = target
        self._first_names: dict[int, str] = {}
        self._directories: dict[str, None] = {}

    def merge(self, prefix: str) -> None:
        """A layer directory's entries: whiteouts delete, opaque directories start anew, others replace."""
        with os.scandir(f"{self._source}/{prefix}") as entries:
            for entry in entries:
                path = prefix + entry.name
                target = f"{self._target}/{path}"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if is_opaque(entry.path) or not _is_directory(target):
                        remove(target)
                        os.mkdir(target, 0o700)
                    self.merge(path + "/")
                    recorded.copy_metadata(entry.path, target)
                    continue
                remove(target)
                if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT):
                    self._copy(path, status)

    def parents(self, path: str) -> None:
        """The directories above, as they are in the source; overlay would have copied them up."""
        parent = posixpath.dirname(path)
        if parent and parent not in self._directories:
            self.parents(parent)
            self._directory(parent)

    def entry(self, path: str) -> None:
        status = os.lstat(f"{self._source}/{path}")
        if stat.S_ISDIR(status.st_mode):
            self._directory(path)
        else:
            self._copy(path, status)

    def set_times(self) -> None:
        """Last of all, as each entry that is made changes its directory's time."""
        for path in self._directories:
            recorded.copy_metadata(f"{self._source}/{path}", f"{self._target}/{path}")

    def _directory(self, path: str) -> None:
        if path not in self._directories:
            os.mkdir(f"{self._target}/{path}", 0o700)
            self._directories[path] = None

    def _copy(self, path: str, status: os.stat_result) -> None:
        source, target = f"{self._source}/{path}", f"{self._target}/{path}"
        if status.st_nlink > 1:
            first = self._first_names.setdefault(status.st_ino, path)
            if first != path:
                os.link(f"{self._target}/{first}", target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            _copy_content(source, target)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif not stat.S_ISSOCK(status.st_mode):
            os.mknod(target, status.st_mode, status.st_rdev)
        else:
            return  # a socket is nothing without its process; layers have none
        recorded.copy_metadata(source, target)


def _copy_content(source: str, target: str) -> None:
    """Shares blocks where the file system can."""
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while _copy_piece(reader, writer):
                pass
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_piece(reader: int, writer: int) -> int:
    try:
        return os.copy_file_range(reader, writer, _PIECE)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}:
            raise
        return os.sendfile(writer, reader, None, _PIECE)


def remove(path: str | Path) -> None:
    """Whatever is there, and nothing behind a link."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        from store.directories import remove_tree

        with _opened(Path(path).parent) as parent:
            remove_tree(os.fsencode(os.path.basename(path)), dir_fd=parent)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(_listed(path)))


def _listed(path: str) -> list[str]:
    return [
        name for name in os.listxattr(path, follow_symlinks=False) if not os.fsencode(name).startswith(OVERLAY_XATTRS)
    ]
