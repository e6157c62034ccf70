"""Trees: a build context or a stage's root filesystem, read through one directory descriptor.

Nothing outside the root is ever read. A path is walked name by name, without following
links; where COPY does follow them, they are resolved here, as if the root were ``/``.

Spec: dockerfile.md 1.5, rows "Paths", "Symlinks", "Wildcards" and "--parents".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from builder.descent import Descent
from builder.dockerfile.glob import clean, has_wildcard, segment, unescaped
from builder.dockerfile.ignore import NOTHING, IgnoreRules
from builder.entries import Change, Entry, EntryKind, FileKey, Source
from image.errors import InvalidInput, SourceNotFound
from image.paths import Path
from image.value import NamedTuple
from store.owners import recorded_metadata, records, seen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_MAX_LINKS = 255

_KINDS = {
    stat.S_IFREG: EntryKind.FILE, stat.S_IFDIR: EntryKind.DIRECTORY, stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.FIFO, stat.S_IFCHR: EntryKind.CHARACTER, stat.S_IFBLK: EntryKind.BLOCK,
    stat.S_IFSOCK: EntryKind.FILE,
}  # fmt: skip


class Tree:
    """A view of the directory ``root``, without what ``rules`` exclude.

    ``root`` stays open as long as the tree is used; the caller closes it. ``own_by_root``
    shows every file as owned by 0:0, as files of a build context are.
    """

    def __init__(self, root: int, rules: IgnoreRules = NOTHING, *, own_by_root: bool = False) -> None:
        self.root = root
        self.rules = rules
        self._own_by_root = own_by_root

    def descent(self) -> Descent:
        """A fresh opener of this tree's files."""
        return Descent(self.root)

    def entry(self, path: str) -> Entry | None:
        """The file at ``path``, without following links or asking the rules; None if absent."""
        with self.descent() as descent:
            return self._entry_by(descent, path)

    def resolve(self, path: str) -> str:
        """``path`` with every symlink in it followed, the last one too; ``..`` stops at the root.

        Raises SourceNotFound if it leads nowhere, or through something the rules exclude.
        """
        with self.descent() as descent:
            return self._resolve(descent, path)

    def sources(self, pattern: str) -> tuple[Source, ...]:
        """The files that one COPY source names, sorted.

        Wildcards may match nothing. Raises SourceNotFound for a plain path that does not
        exist or is excluded and for a match that is a dangling link, InvalidInput for bad syntax.
        """
        pattern = _rooted(pattern)
        if has_wildcard(pattern):
            return tuple(self._matches(pattern))
        path = unescaped(pattern)
        return (self._source(path),)

    def sources_with_parents(self, pattern: str) -> tuple[Source, ...]:
        """Like ``sources`` for ``--parents``: ``**`` crosses directories, ``kept`` is filled.

        The part after the first ``/./`` is kept, or all of the path. A match on a directory
        stands for what is in it.
        """
        base, pivot, rest = pattern.partition("/./")
        base, rest = (_rooted(base), _rooted(rest)) if pivot else ("", _rooted(pattern))
        if base:
            base = self.resolve(unescaped(base))
        if not has_wildcard(rest):
            path = unescaped(f"{base}/{rest}").strip("/")
            source = self._source(path)
            return (Source(source.path, source.name, source.kind, unescaped(rest)),)
        matching = _compiled(rest)
        found: list[Source] = []
        for entry in self.walk(base):
            kept = entry.path[len(base) :].lstrip("/")
            covered = bool(found) and f"{kept}/".startswith(f"{found[-1].kept}/")
            if kept and not covered and matching.excludes(kept):
                found.append(Source(entry.path, kept.rpartition("/")[2], entry.kind, kept))
        return tuple(found)

    def walk(self, path: str = "", excludes: IgnoreRules = NOTHING) -> Generator[Entry, None, None]:
        """The file at ``path`` and everything below it: parents first, names sorted.

        ``excludes`` are relative to ``path``. An excluded directory appears only if something
        below it is re-included. Links are not followed. Raises SourceNotFound, InvalidInput.
        """
        top = self.entry(path)
        if top is None:
            raise SourceNotFound(f"/{path}")
        if top.kind is EntryKind.DIRECTORY:
            yield top
            yield from self._below(path, excludes)
        elif not excludes.excludes(path.rpartition("/")[2]):
            yield top

    def _below(self, path: str, excludes: IgnoreRules) -> Iterator[Entry]:
        """A stack of open directories, deepest last; ``held`` are excluded ones not yet shown."""
        held: list[Entry] = []
        relative = len(path) + 1 if path else 0
        with self.descent() as descent:
            stack = [_Frame(path, iter(self._list(descent, path, excludes, relative)))]
            while stack:
                child = next(stack[-1].children, None)
                if child is None:
                    if held and held[-1].path == stack[-1].path:
                        held.pop()
                    stack.pop()
                    continue
                entry, excluded = child
                if excluded:
                    held.append(entry)
                else:
                    yield from held
                    held.clear()
                    yield entry
                if entry.kind is EntryKind.DIRECTORY:
                    stack.append(_Frame(entry.path, iter(self._list(descent, entry.path, excludes, relative))))

    def _list(self, descent: Descent, directory: str, excludes: IgnoreRules, relative: int) -> list[tuple[Entry, bool]]:
        """The children of a directory that matter, sorted, each with whether it is excluded."""
        fd = descent.directory(directory)
        prefix = f"{directory}/" if directory else ""
        children: list[tuple[Entry, bool]] = []
        with os.scandir(fd) as scan:
            for item in scan:
                path = prefix + item.name
                excluded = self._exclusion(item, path, excludes, relative)
                if excluded is None:
                    continue
                try:
                    entry = self._make_entry(fd, path, item.name, item.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue  # removed since the directory was read
                children.append((entry, excluded))
        children.sort(key=_path_of)
        return children

    def _exclusion(self, item: os.DirEntry[str], path: str, excludes: IgnoreRules, relative: int) -> bool | None:
        """Whether a child is excluded; None if nothing of it matters, as nothing below is re-included."""
        excluded = False
        for rules, name in ((self.rules, path), (excludes, path[relative:])):
            if rules and rules.excludes(name):
                if not (item.is_dir(follow_symlinks=False) and rules.may_include_below(name)):
                    return None
                excluded = True
        return excluded

    def changes(self, path: str, excludes: IgnoreRules = NOTHING) -> list[Change]:
        """What would be different if a file that ``walk`` gives changed, in no order.

        Half the price of a walk, as no entries are made. Raises SourceNotFound.
        """
        top = self.entry(path)
        if top is None:
            raise SourceNotFound(f"/{path}")
        found: list[Change] = [(path, *top.key)]
        pending = [path] if top.kind is EntryKind.DIRECTORY else []
        relative = len(path) + 1 if path else 0
        with self.descent() as descent:
            while pending:
                directory = pending.pop()
                prefix = f"{directory}/" if directory else ""
                with os.scandir(descent.directory(directory)) as scan:
                    for item in scan:
                        name = prefix + item.name
                        if self._exclusion(item, name, excludes, relative) is None:
                            continue
                        status = item.stat(follow_symlinks=False)
                        found.append(
                            (name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                        )
                        if item.is_dir(follow_symlinks=False):
                            pending.append(name)
        return found

    def _entry_by(self, descent: Descent, path: str) -> Entry | None:
        parent, _, name = path.rpartition("/")
        try:
            fd = descent.directory(parent)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise
        return self._make_entry(fd, path, name, status)

    def _make_entry(self, fd: int, path: str, name: str, status: os.stat_result) -> Entry:
        owner = seen(fd, name, status)
        kind = _KINDS[stat.S_IFMT(owner.mode or status.st_mode)]
        regular = stat.S_ISREG(status.st_mode) and not owner.mode
        mode, uid, gid = status.st_mode & 0o7777, owner.uid, owner.gid
        if self._own_by_root:
            uid = gid = 0
        elif records() and kind is not EntryKind.SYMLINK and kind is not EntryKind.FIFO:
            mode, uid, gid = recorded_metadata(b"/proc/self/fd/%d/%b" % (fd, os.fsencode(name)), status)
        return Entry(
            path,
            kind,
            mode,
            uid,
            gid,
            status.st_size if regular else 0,
            os.readlink(name, dir_fd=fd) if kind is EntryKind.SYMLINK else "",
            (owner.device or status.st_rdev) if kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else 0,
            status.st_mtime_ns,
            status.st_nlink,
            FileKey(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
            kind is EntryKind.FILE and not regular,
        )

    def _source(self, path: str) -> Source:
        """The source at a plain path."""
        with self.descent() as descent:
            resolved = self._resolve(descent, path)
            entry = self._entry_by(descent, resolved)
            assert entry is not None
            if not self._visible(entry):
                raise SourceNotFound(f"/{path}", excluded=True)
        return Source(resolved, path.rpartition("/")[2], entry.kind)

    def _resolve(self, descent: Descent, path: str) -> str:
        pending = [name for name in reversed(path.split("/")) if name]
        done: list[str] = []
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                del done[-1:]
            if name in (".", ".."):
                continue
            here = "/".join((*done, name))
            entry = self._entry_by(descent, here)
            if entry is None:
                raise SourceNotFound("/" + "/".join((here, *reversed(pending))))
            if entry.kind is not EntryKind.SYMLINK:
                done.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidInput(f'"/{path}": too many levels of symbolic links')
            if self.rules.excludes(here):
                raise SourceNotFound(f"/{path}", excluded=True)
            if entry.link.startswith("/"):
                done.clear()
            pending += [part for part in reversed(entry.link.split("/")) if part]
        return "/".join(done)

    def _matches(self, pattern: str) -> Iterator[Source]:
        """The matches of a pattern with wildcards, segment by segment, sorted."""
        parts = pattern.split("/")
        plain = next(index for index, part in enumerate(parts) if has_wildcard(part))
        try:
            base = self.resolve(unescaped("/".join(parts[:plain])))
        except SourceNotFound:
            return
        try:
            matchers = [segment(part) for part in parts[plain:]]
        except ValueError as error:
            _bad_pattern(pattern, error)
        found = [base]
        with self.descent() as descent:
            for matcher in matchers:
                found = [
                    f"{directory}/{name}" if directory else name
                    for directory in found
                    for name in _names(descent, directory)
                    if matcher.match(name)
                ]
        for path in found:
            entry = self.entry(path)
            if entry is not None and self._visible(entry):
                yield self._source(path)

    def _visible(self, entry: Entry) -> bool:
        """Whether the rules leave anything of a file."""
        if not entry.path or not self.rules.excludes(entry.path):
            return True
        if entry.kind is not EntryKind.DIRECTORY or not self.rules.may_include_below(entry.path):
            return False
        return next(self._below(entry.path, NOTHING), None) is not None


class FileTree(Tree):
    """A tree of one file, which lies elsewhere under another name: every pattern finds it."""

    def __init__(self, root: int, path: str, name: str, mode: int, mtime_s: int) -> None:
        super().__init__(root, own_by_root=True)
        self._source_file = Source(path, name, EntryKind.FILE)
        self._mode = mode
        self._mtime_ns = mtime_s * 1_000_000_000

    @classmethod
    @contextmanager
    def open(cls, path: Path, name: str, *, mode: int, mtime_s: int) -> Iterator[FileTree]:
        """The file at ``path``, to be seen as ``name`` with this mode and time."""
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield cls(fd, path.name, name, mode, mtime_s)
        finally:
            os.close(fd)

    def sources(self, pattern: str) -> tuple[Source, ...]:  # noqa: ARG002 - there is nothing to choose
        return (self._source_file,)

    def _make_entry(self, fd: int, path: str, name: str, status: os.stat_result) -> Entry:
        entry = super()._make_entry(fd, path, name, status)
        return entry._replace(mode=self._mode, mtime_ns=self._mtime_ns, nlink=1)


class _Frame(NamedTuple):
    path: str
    children: Iterator[tuple[Entry, bool]]


def _path_of(child: tuple[Entry, bool]) -> str:
    return child[0].path


def _rooted(pattern: str) -> str:
    """A source path from the root: cleaned, ``..`` clamped, no slash at either end."""
    return clean(f"/{pattern}").strip("/")


def _compiled(pattern: str) -> IgnoreRules:
    try:
        return IgnoreRules.of([pattern])
    except InvalidInput as error:
        _bad_pattern(pattern, error)


def _bad_pattern(pattern: str, error: Exception) -> NoReturn:
    raise InvalidInput(f"invalid source pattern {pattern!r}: syntax error in pattern") from error


def _names(descent: Descent, directory: str) -> list[str]:
    """The names in a directory, sorted; none if it is no directory."""
    try:
        with os.scandir(descent.directory(directory)) as scan:
            return sorted(item.name for item in scan)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            return []
        raise
