"""Unpacked layers as overlay2 directories, and mounts of stacks of them.

    overlay2/<id>/diff     the layer's files, in overlay form (whiteouts are 0:0 devices)
    overlay2/<id>/link     the layer's short name
    overlay2/<id>/lower    the short names of the layers below, top first
    overlay2/<id>/work     overlayfs scratch space, while a workspace is written
    overlay2/<id>/merged   where a sandbox mounts the stack, in its own mount namespace
    overlay2/l/<short>     symbolic link to ../<id>/diff

mount(2) takes at most 4096 bytes of options, so a stack is mounted with short names
relative to ``overlay2/``; more than 200 layers fit.

A mount never appears in the caller's mount namespace: a sandbox mounts for itself, and
``mounted`` gives a directory descriptor of a mount that nothing else can see. So a process
that is killed leaves no mount behind.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import takewhile

from image.digest import ChainID, DiffID
from image.errors import KernelError, LayerNotFound
from image.paths import Path
from image.value import dataclass
from store.content import storage_errors
from store.form import Form
from store.linux import mounts, processes
from store.metadata import LayerRecord, Metadata
from store.owners import copy_record, in_user_namespace, written_through

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeVar

    from store.trees import Trees

    _T = TypeVar("_T")

_VIEW: Final = "view"
"""Where a tree is mounted to be looked at; itself always empty."""
_EMPTY: Final = "l/0"
"""Short name of an empty directory: the bottom of every stack, as overlayfs wants two lowers."""


@dataclass(frozen=True, slots=True)
class OverlayMount:
    """The words of one overlay mount. All names are relative to ``base``; ``lowers`` top first.

    Without ``upper`` the mount is read-only.
    """

    base: Path
    lowers: tuple[str, ...]
    upper: str | None
    work: str | None
    merged: str
    volatile: bool = False
    """Skip flushing to disk: for trees that a crash would discard anyway."""
    userxattr: bool = False
    """Overlay's own attributes are ``user.overlay.*``, as a user namespace must have them (Linux 5.11)."""

    @property
    def options(self) -> bytes:
        """The data argument of mount(2), for a caller whose working directory is ``base``."""
        words = "lowerdir=" + ":".join(self.lowers)
        if self.upper is not None:
            words += f",upperdir={self.upper},workdir={self.work}"
            if self.volatile:
                words += ",volatile"
        if self.userxattr:
            words += ",userxattr"
        return os.fsencode(words)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A layer that is being made. Its files are in ``diff``."""

    directory: str
    path: Path

    @property
    def diff(self) -> Path:
        return self.path / "diff"


class LayerStore:
    """``overlay2/`` under the store's root."""

    def __init__(self, root: Path, metadata: Metadata) -> None:
        self.base = root / "overlay2"
        self._trash = root / "trash"
        self._metadata = metadata
        self._trees: Trees | None = None
        self.form = Form(root, lambda: not metadata.layers())

    @property
    def trees(self) -> Trees:
        """How stacks become trees: by overlay, unless something else was set."""
        if self._trees is None:
            from store.trees import OverlayTrees

            self._trees = OverlayTrees(self)
        return self._trees

    @trees.setter
    def trees(self, trees: Trees) -> None:
        self._trees = trees

    def create(self) -> None:
        """Make the directories. Idempotent."""
        (self.base / "l").mkdir(parents=True, exist_ok=True)
        (self.base / _EMPTY).mkdir(exist_ok=True)
        (self.base / _VIEW).mkdir(exist_ok=True)
        self._trash.mkdir(mode=0o700, exist_ok=True)

    def get(self, chain_id: ChainID) -> LayerRecord:
        """Raises LayerNotFound."""
        layer = self._metadata.layer(chain_id)
        if layer is None:
            raise LayerNotFound(f"layer {chain_id} is not unpacked in the store")
        return layer

    def has(self, chain_id: ChainID) -> bool:
        return self._metadata.layer(chain_id) is not None

    def stack(self, chain_id: ChainID | None) -> tuple[LayerRecord, ...]:
        """The layers of a chain, top first. Raises LayerNotFound."""
        if chain_id is None:
            return ()
        stack = self._metadata.layer_stack(chain_id)
        if not stack:
            raise LayerNotFound(f"layer {chain_id} is not unpacked in the store")
        return tuple(stack)

    def diff(self, layer: LayerRecord) -> Path:
        return self.base / layer.directory / "diff"

    def make_workspace(self, directory: str, above: str | None) -> Workspace:
        """An empty layer directory, ready to be an overlay's upper side over the directory ``above``.

        The caller (a session) has leased ``directory``. Its root gets the mode and owner of
        the root of ``above``, as the upper side's root is what a container sees as ``/``.
        """
        self.form.take()
        path = self.base / directory
        below = (self.base / above / "diff").stat() if above else None
        with storage_errors(f"make a layer directory in {self.base}"):
            path.mkdir(mode=0o700)
            for name in ("diff", "work", "merged"):
                (path / name).mkdir()
            os.chmod(path / "diff", stat.S_IMODE(below.st_mode) if below else 0o755)
            if below and (below.st_uid or below.st_gid):
                os.chown(path / "diff", below.st_uid, below.st_gid)
            copy_record(self.base / above / "diff" if above else None, path / "diff")
            short = self._short(directory)
            (path / "link").write_text(short.removeprefix("l/"))
            os.symlink(f"../{directory}/diff", self.base / short)
        return Workspace(directory, path)

    def reopen_workspace(self, directory: str) -> Workspace:
        """A workspace that was mounted before: a volatile overlay wants fresh scratch space."""
        path = self.base / directory
        with storage_errors(f"open layer directory {directory}"):
            _remove_tree(path / "work")
            (path / "work").mkdir(exist_ok=True)
        return Workspace(directory, path)

    def make_scratch(self, directory: str) -> Path:
        """An empty directory that is no layer. The caller (a session) has leased ``directory``."""
        path = self.base / directory
        with storage_errors(f"make a directory in {self.base}"):
            path.mkdir(mode=0o700)
        return path

    def commit(
        self, workspace: Workspace, parent: ChainID | None, diff_id: DiffID, *, size: int, entries: int
    ) -> LayerRecord:
        """Make a finished workspace the layer on top of ``parent``.

        When another process made the same layer first, that one is returned and the
        workspace is left to be discarded. ``size`` in bytes.
        """
        chain_id = parent.then(diff_id) if parent else ChainID(str(diff_id))
        lower = [self._short(layer.directory) for layer in self.stack(parent)]
        layer = LayerRecord(chain_id, parent, diff_id, workspace.directory, size, entries)
        with storage_errors(f"commit a layer in {self.base}"):
            (workspace.path / "lower").write_text(":".join(lower))
            _remove_tree(workspace.path / "work")
        return layer if self._metadata.add_layer(layer) else self.get(chain_id)

    def directories_of(self, chain_id: ChainID | None) -> tuple[str, ...]:
        """The directory names of a chain, top first. Raises LayerNotFound."""
        return tuple(layer.directory for layer in self.stack(chain_id))

    def overlay(
        self, directories: Sequence[str], workspace: Workspace | None = None, *, volatile: bool = False
    ) -> OverlayMount:
        """How to mount layer directories (top first), writable into ``workspace`` or read-only without one.

        ``volatile`` is dropped where the kernel (before 5.10) does not have it. Raises StorageError for
        layers of another form.
        """
        self.form.require()
        lowers = tuple(self._short(directory) for directory in directories)
        if workspace is None:
            lowers = lowers or (_VIEW,)  # a mount of no layer needs a second empty directory
            return OverlayMount(self.base, (*lowers, _EMPTY), None, None, _VIEW, userxattr=in_user_namespace())
        at = workspace.directory
        return OverlayMount(
            self.base, (*lowers, _EMPTY), f"{at}/diff", f"{at}/work", f"{at}/merged",
            volatile and _knows_volatile(), in_user_namespace(),
        )  # fmt: skip

    def discard(self, directory: str) -> Path | None:
        """Take a layer directory out of use at once; the path that ``empty_trash`` will delete."""
        with suppress(FileNotFoundError):
            os.unlink(self.base / self._short(directory))
        target = self._trash / f"{directory}-{os.urandom(4).hex()}"
        try:
            os.rename(self.base / directory, target)
        except FileNotFoundError:
            return None
        return target

    def empty_trash(self) -> None:
        """Delete what ``discard`` set aside. Processes may do this at the same time."""
        for path in list(self._trash.iterdir()):
            _remove_tree(path)

    def directories(self) -> set[str]:
        """Names of all layer directories on disk."""
        return {path.name for path in self.base.iterdir() if path.name not in {"l", _VIEW}}

    def _short(self, directory: str) -> str:
        return f"l/{directory[:12]}"


@cache
def _knows_volatile() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(takewhile(str.isdigit, minor)) or 0)) >= (5, 10)


def _remove_tree(path: Path) -> None:
    from store.directories import discard_tree  # most commands remove nothing

    discard_tree(path)


def new_directory_name() -> str:
    """A name for a layer directory; its first 12 characters are unique by themselves."""
    return os.urandom(16).hex()


def hide_mounts() -> None:
    """From here on, this thread and the processes that it starts mount for themselves. Raises OSError."""
    processes.unshare(processes.CLONE_NEWNS | processes.CLONE_FS)
    mounts.mount(None, b"/", None, mounts.MS_REC | mounts.MS_PRIVATE)


def in_private_mounts(work: Callable[[], _T]) -> _T:
    """The result of ``work``, done in a thread whose mounts nothing else sees.

    The mount namespace ends with the thread, and with the processes that were started in it.
    """
    result: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            hide_mounts()
            result.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="mounts")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


@contextmanager
def mounted(overlay: OverlayMount, furnish: Callable[[int], None] | None = None) -> Iterator[int]:
    """A descriptor of the merged tree, usable by every thread, seen by no other process.

    The mount lives in a mount namespace of its own that ends at once; the open descriptor
    alone keeps the mount. ``furnish(fd)`` may mount more inside the tree: what is mounted on
    something needs its namespace, which then ends with the block. Raises KernelError, and what
    ``furnish`` raises but OSError.
    """

    def open_merged() -> tuple[int, int]:
        os.chdir(overlay.base)
        merged = os.fsencode(overlay.merged)
        mounts.mount(b"overlay", merged, b"overlay", 0, overlay.options)
        fd = os.open(merged, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if furnish is None:
            return fd, -1
        try:
            furnish(fd)
            return fd, os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(fd)
            raise

    try:
        fd, namespace = in_private_mounts(open_merged)
    except OSError as error:
        raise KernelError("mount a root filesystem", "mount", error.errno or 0, str(overlay.base)) from error
    try:
        if overlay.upper is None or not overlay.userxattr:
            yield fd
            return
        with written_through(fd, overlay.base / overlay.upper.removesuffix("/diff")):
            yield fd
    finally:
        os.close(fd)
        if namespace >= 0:
            os.close(namespace)
