"""COPY and ADD: what is selected, its checksum, and the copy itself.

Spec: dockerfile.md 1.5.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Final, NamedTuple

from builder.checksum import ChecksumCache, content_checksum, file_digests, fingerprint, settled
from builder.dockerfile.ignore import NOTHING, IgnoreRules
from builder.dockerfile.instructions import InlineFile
from builder.entries import Change, EntryKind, Source, Stop
from builder.graph import CopyFiles
from builder.results import Checkout, Download, Files, Result, Rootfs, readable
from builder.steps.earlier_copy import EarlierCopy, earlier_copy
from builder.steps.mode import Mode
from builder.steps.owners import chown_owner
from builder.steps.place import Destination, Placing
from builder.steps.tree import ROOT, Owner, lstat, make_directories
from builder.steps.write import write_file
from builder.tree import Tree
from image.errors import InvalidInput
from image.value import Protocol
from store.content import storage_errors
from store.inside import resolve
from store.layers import LayerStore, Workspace

_INLINE_MODE: Final = 0o644
OpenRemote = Callable[[Download | Checkout], AbstractContextManager[Tree]]


class SelectionCache(ChecksumCache, Protocol):
    """Remembers, besides single files, what a whole selection of a context came to."""

    def selection(self, key: str) -> tuple[str, str] | None:
        """The fingerprint and the checksum that a selection had."""

    def remember_selection(self, key: str, fingerprint: str, checksum: str) -> None: ...


class _Selection:
    """What one input of a copy gives."""

    def __init__(self, operation: CopyFiles, position: int, tree: Tree) -> None:
        self.operation = operation
        self.tree = tree
        self.patterns = operation.patterns(position)
        self.excludes = _excludes(operation)
        self.sources = list(_selected(operation, self.patterns, tree))

    def key(self, place: str) -> str:
        """What was selected from where; the state of the files is another matter."""
        words = (place, self.patterns, self.operation.excludes, self.operation.parents)
        return hashlib.sha256(repr(words).encode("utf-8", "surrogateescape")).hexdigest()

    def changes(self) -> list[Change]:
        return [change for source in self.sources for change in self.tree.changes(source.path, self.excludes)]


class CopyEffect:
    """Copies files into layers, and tells what a copy's content is without copying."""

    def __init__(
        self,
        layers: LayerStore,
        checksums: SelectionCache,
        open_remote: OpenRemote,
        clock_ns: Callable[[], int],
        stop: Stop,
    ) -> None:
        self._layers = layers
        self._checksums = checksums
        self._open_remote = open_remote
        self._clock_ns = clock_ns
        self._stop = stop
        self._known: dict[tuple[CopyFiles, int, str], str] = {}
        self._lock = threading.Lock()

    def checksum(self, operation: CopyFiles, position: int, source: Result) -> str:
        """What the operation reads from ``source``, its input at ``position``: names and content, times apart.

        A commit or a download is known by name. Raises SourceNotFound, InvalidInput, Cancelled.
        """
        if isinstance(source, Download | Checkout):
            return source.key
        key = (operation, position, source.key)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            with self._tree(source) as tree:
                selection = _Selection(operation, position, tree)
                if isinstance(source, Files):
                    known = self._context_checksum(selection, source)
                else:
                    known = self._content_checksum(selection)
            with self._lock:
                self._known[key] = known
        return known

    def _context_checksum(self, selection: _Selection, source: Files) -> str:
        """Like ``_content_checksum``, but where no file changed since the last build, no file is looked at."""
        key = selection.key(str(source.context.root))
        changes = selection.changes()
        state = fingerprint(changes)
        remembered = self._checksums.selection(key)
        if remembered is not None and remembered[0] == state:
            return remembered[1]
        checksum = self._content_checksum(selection)
        if settled(changes, self._clock_ns()):
            self._checksums.remember_selection(key, state, checksum)
        return checksum

    def _content_checksum(self, selection: _Selection) -> str:
        total = hashlib.sha256()
        operation, tree = selection.operation, selection.tree
        for source in selection.sources:
            entries = list(tree.walk(source.path, selection.excludes))
            digests = file_digests(tree, entries, self._checksums, now_ns=self._clock_ns(), stop=self._stop)
            merged = source.kind is EntryKind.DIRECTORY and not operation.parents
            content = content_checksum(entries, digests, source.path, with_top=not merged)
            total.update(
                f"{source.kept or source.name}\0{source.kind.value}\0{content}\0".encode("utf-8", "surrogateescape")
            )
        return total.hexdigest()

    def perform(
        self, operation: CopyFiles, base: Rootfs, sources: Sequence[Result], workspace: Workspace,
        *, mtime_s: int | None, earlier: Path | None = None,
    ) -> None:  # fmt: skip
        """Do the copy on top of ``base``; what it made is in ``workspace`` afterwards.

        ``earlier`` is the directory of a layer that the same operation made before, of other content perhaps.

        ``mtime_s`` is the time of directories that are made on the way, and of what comes from a
        context or a checkout: its own times are of this machine, and are in no key.
        Raises SourceNotFound, InvalidInput, StorageError, Cancelled, and what the network raises.
        """
        with ExitStack() as opened:
            inputs = [
                _Input(
                    opened.enter_context(self._tree(source)),
                    isinstance(source, Download),
                    isinstance(source, Files | Checkout),
                    isinstance(source, Files),
                )
                for source in sources
            ]
            destination = opened.enter_context(self._destination(operation, base, workspace))
            opened.enter_context(storage_errors(f"copy to {operation.dest}"))
            memory = (
                opened.enter_context(earlier_copy(earlier, self._clock_ns())) if self._layers.trees.mounts else None
            )
            _Copy(operation, inputs, destination, workspace.path / "unpacked", mtime_s, self._stop, memory).carry_out()
            if memory is not None:
                memory.remember(workspace.path)

    @contextmanager
    def _destination(self, operation: CopyFiles, base: Rootfs, workspace: Workspace) -> Iterator[Destination]:
        """Where the files go: over the base, or into an empty root for a layer of its own.

        That is no mount over nothing, where overlayfs would mark new directories as opaque:
        on a base, such a layer would hide the base's.
        """
        trees = self._layers.trees
        upper = os.open(workspace.diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if operation.link:
                yield Destination(upper)
                return
            with trees.opened(base.directories, workspace) as root:
                yield Destination(root, upper if trees.mounts else None)
        finally:
            os.close(upper)

    @contextmanager
    def _tree(self, source: Result) -> Iterator[Tree]:
        match source:
            case Files():
                with source.context.open() as tree:
                    yield tree
            case Rootfs():
                with readable(self._layers, source) as fd:
                    yield Tree(fd)
            case Download() | Checkout():
                with self._open_remote(source) as tree:
                    yield tree


class _Input(NamedTuple):
    tree: Tree
    is_download: bool
    has_local_times: bool
    stays: bool
    """The files outlive the build, so that the next one may meet them again."""


class _Copy:
    """One COPY or ADD, with all trees open. ``scratch`` does not exist; archives pass through it."""

    def __init__(
        self,
        operation: CopyFiles,
        inputs: Sequence[_Input],
        destination: Destination,
        scratch: Path,
        mtime_s: int | None,
        stop: Stop,
        earlier: EarlierCopy | None,
    ) -> None:
        self._operation = operation
        self._earlier = earlier
        self._inputs = inputs
        self._destination = destination
        self._root = destination.root
        self._scratch = scratch
        self._mtime_s = mtime_s
        self._stop = stop
        self._mode = Mode.parse(operation.chmod) if operation.chmod else None
        self._owner = chown_owner(self._root, operation.chown) if operation.chown else None
        self._excludes = _excludes(operation)

    def carry_out(self) -> None:
        operation = self._operation
        with ExitStack() as opened:
            placings = [
                opened.enter_context(
                    Placing(
                        source.tree,
                        self._destination,
                        self._owner,
                        self._mode,
                        mtime_s=self._mtime_s if source.has_local_times else None,
                        stop=self._stop,
                        earlier=self._earlier if source.stays else None,
                    )
                )
                for source in self._inputs
            ]
            for position, pattern in zip(operation.inputs or repeat(0), operation.sources, strict=False):
                from_ = self._inputs[position]
                for source in _selected(operation, (pattern,), from_.tree):
                    self._place(placings[position], from_, source)
        for file in self._operation.inline:
            self._write_inline(file)

    def _place(self, placing: Placing, from_: _Input, source: Source) -> None:
        operation = self._operation
        unpacks = operation.unpack_downloads if from_.is_download else operation.unpack
        if operation.parents:
            self._place_with_parents(placing, source)
        elif source.kind is EntryKind.DIRECTORY:
            placing.contents(source.path, self._directory(operation.dest), self._excludes)
        elif unpacks and source.kind is EntryKind.FILE and self._place_archive(from_.tree, source):
            return
        else:
            placing.file(source.path, self._file_target(source.name), self._excludes)

    def _place_archive(self, tree: Tree, source: Source) -> bool:
        """Unpack a source that is an archive; False when it is none."""
        from builder.steps.archive import is_archive, place_archive  # only ADD needs the tar reader

        if not is_archive(tree, source):
            return False
        target = self._directory(self._operation.dest)
        place_archive(tree, source, self._destination, target, self._scratch, self._owner, self._stop)
        return True

    def _place_with_parents(self, placing: Placing, source: Source) -> None:
        """Keep the path from the pivot on; parents look like the source's."""
        top = self._directory(self._operation.dest)
        if not source.kept:  # the pivot is at the end
            placing.contents(source.path, top, self._excludes)
            return
        names = source.kept.split("/")
        prefix = source.path[: len(source.path) - len(source.kept)].rstrip("/")
        for depth in range(1, len(names)):
            part = "/".join(names[:depth])
            placing.directory(posixpath.join(prefix, part), posixpath.join(top, part))
        target = posixpath.join(top, source.kept)
        if source.kind is EntryKind.DIRECTORY:
            placing.directory(source.path, target)
            placing.contents(source.path, target, self._excludes)
        else:
            placing.file(source.path, target, self._excludes)

    def _directory(self, path: str) -> str:
        """A destination directory, made if it is missing; resolved. An existing one stays as it is."""
        octal = self._mode.octal if self._mode else None
        try:
            return make_directories(
                self._root, path, self._owner or ROOT, 0o755 if octal is None else octal,
                mtime_s=self._mtime_s, made=self._destination.made,
            )  # fmt: skip
        except NotADirectoryError as error:
            raise InvalidInput(f"cannot copy to non-directory: {error.filename}") from error

    def _file_target(self, name: str) -> str:
        """Where a single file goes: into a directory that is meant or exists, else to that very name."""
        dest = self._operation.dest
        resolved = resolve(self._root, dest)
        existing = lstat(self._root, resolved)
        if dest.endswith("/") or (existing is not None and stat.S_ISDIR(existing.st_mode)):
            return posixpath.join(self._directory(dest), name)
        return posixpath.join(self._directory(posixpath.dirname("/" + resolved)), posixpath.basename(resolved))

    def _write_inline(self, file: InlineFile) -> None:
        mode = self._mode.apply(_INLINE_MODE, is_directory=False) if self._mode else _INLINE_MODE
        write_file(self._root, self._file_target(file.name), file.content, mode, self._owner or Owner(), self._mtime_s)


def _selected(operation: CopyFiles, patterns: Iterable[str], tree: Tree) -> Iterator[Source]:
    for pattern in patterns:
        yield from tree.sources_with_parents(pattern) if operation.parents else tree.sources(pattern)


def _excludes(operation: CopyFiles) -> IgnoreRules:
    return IgnoreRules.of(operation.excludes) if operation.excludes else NOTHING
