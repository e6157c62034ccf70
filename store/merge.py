"""The layers of an image as one tar, without a place on disk to lay them out.

    top layer ─ … ─ lowest layer      each read once, its entries given on unless a layer above hides them

What was seen of the layers above is kept by name; nothing of any content is. A hard link to a
file that a layer above hides needs that file's content after all: such a layer is opened once more.

Layers are hostile. Names are taken apart as ``unpack`` does: a leading ``/`` is dropped, nothing leads
out of the root, links above an entry are followed within its own layer. Nothing in the tar is written
through a link of the tar. A parent may come after what is below it, as the top layer comes first.

Spec: image-spec "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

from image.errors import InvalidArchive
from store.directories import PATH_LIMIT
from store.owners import RECORDS
from store.tar import END_OF_ARCHIVE, PADDING, Entry, Kind, header
from store.tar_reader import Reader, shown
from store.unpack import OVERLAY_XATTRS, clean
from store.whiteouts import WHITEOUT_PREFIX, read_whiteout

OpenLayer = Callable[[], AbstractContextManager[Iterator[bytes]]]
"""Opens a layer's uncompressed tar, from its start; no piece of it is empty."""

_MAX_SIZE: Final = 1 << 40
"""Bytes that the files of an image may have, holes included."""
_MAX_LINKS: Final = 40
_NS: Final = 10**9


class _Is(enum.Enum):
    """What a layer has under a name."""

    IMPLIED = 0  # a directory that is part of a longer name, and has no entry
    DIRECTORY = 1
    OTHER = 2


def merged(layers: Sequence[OpenLayer]) -> Iterator[bytes | memoryview]:
    """The uncompressed tar of layers, lowest first. A piece is valid until the next one is asked for.

    Raises InvalidArchive, naming the entry, for a layer that is malformed, reaches out of the root, or
    says two things of one name that no tar can say; and what opening and reading a layer raises.
    """
    above = _Above()
    size = 0
    for layer in reversed(layers):
        for piece in _Layer(layer, above).pieces():
            size += len(piece)
            if size > _MAX_SIZE:
                raise InvalidArchive(f"the files of the image have more than {_MAX_SIZE} bytes")
            yield piece
    yield from (header(path + b"/", Kind.DIRECTORY, mode=0o755) for path in above.implied)
    yield END_OF_ARCHIVE


class _Above:
    """What the layers above one have, and what they close to it."""

    def __init__(self) -> None:
        self._names: dict[bytes, _Is] = {}
        self._gone: set[bytes] = set()
        self._closed: set[bytes] = set()
        """Directories into which nothing shines from below."""
        self.implied: dict[bytes, None] = {}
        """Directories that are to be seen, and have no entry that is."""

    def shows(self, path: bytes, *, directory: bool) -> bool:
        """Whether an entry of the next layer is to be seen."""
        known = self._names.get(path)
        if known is not None and not (known is _Is.IMPLIED and directory and path not in self._gone):
            return False
        return self._open_to(path)

    def _open_to(self, path: bytes) -> bool:
        """Whether no directory above a path hides it."""
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._closed or self._names.get(path) is _Is.OTHER:
                return False
        return True

    def add(self, names: dict[bytes, _Is], gone: set[bytes], closed: set[bytes]) -> None:
        """A layer that was read: the next one lies below it. What is ``gone`` may be there anew."""
        for path, kind in names.items():
            before = self._names.get(path)
            if kind is _Is.IMPLIED and before is None and self._open_to(path):
                self.implied[path] = None
            elif kind is _Is.DIRECTORY and path in self.implied and self.shows(path, directory=True):
                del self.implied[path]
            if before is None or before is _Is.IMPLIED:
                self._names[path] = kind
            if kind is _Is.OTHER and before is not None:  # a directory above it has nothing from further below
                self._closed.add(path)
        for path in gone:
            self._names.setdefault(path, _Is.OTHER)
        self._gone |= gone
        self._closed |= gone | closed


class _Names:
    """The names of one layer, while it is read."""

    def __init__(self) -> None:
        self.known: dict[bytes, _Is] = {}
        self.gone: set[bytes] = set()
        self.closed: set[bytes] = set()
        self._symlinks: dict[bytes, bytes] = {}
        self._first: dict[bytes, bytes] = {}

    def place(self, entry: Entry) -> bytes | None:
        """Where an entry goes; None for one that only hides. Raises InvalidArchive."""
        path = clean(entry.name)
        if WHITEOUT_PREFIX in path and (found := read_whiteout(path)) is not None:
            if found.victim:
                self.gone.add(_join(self._resolved(found.parent, make=False), found.victim))
            elif found.victim is not None:
                self.closed.add(self._resolved(found.parent, make=False))
            return None
        parent, _, name = path.rpartition(b"/")
        if not name and entry.kind is not Kind.DIRECTORY:
            raise InvalidArchive("the root can only be a directory")
        path = _join(self._resolved(parent), name)
        if entry.kind is Kind.CHAR_DEVICE and entry.device == (0, 0):  # overlay takes it for a whiteout
            self.gone.add(path)
            return None
        self._take(path, entry)
        return path

    def _take(self, path: bytes, entry: Entry) -> None:
        kind = _Is.DIRECTORY if entry.kind is Kind.DIRECTORY else _Is.OTHER
        if self.known.get(path, kind) is not kind and {kind, self.known[path]} != {_Is.IMPLIED, _Is.DIRECTORY}:
            raise InvalidArchive("it is a directory, and something else, in one layer")
        if path in self._symlinks and entry.kind is not Kind.SYMLINK:
            raise InvalidArchive("it is a symlink, and something else, in one layer")
        if entry.kind is Kind.HARD_LINK:
            self._first[path] = self._linked(entry)
        elif entry.kind is Kind.SYMLINK:
            if not entry.link or b"\0" in entry.link:
                raise InvalidArchive("symlink without a valid target")
            self._symlinks[path] = entry.link
        self.known[path] = kind

    def _linked(self, entry: Entry) -> bytes:
        parent, _, name = clean(entry.link or b"/").rpartition(b"/")
        target = _join(self._resolved(parent, make=False), name)
        if self.known.get(target) is not _Is.OTHER:
            raise InvalidArchive(f"hard link to {shown(entry.link)!r}, which is no file of the layer")
        return self.first(target)

    def first(self, path: bytes) -> bytes:
        """The name under which a hard link's file stands in the layer; any other path is its own."""
        return self._first.get(path, path)

    def _resolved(self, path: bytes, *, make: bool = True) -> bytes:
        """A directory of the layer, links followed inside it. With ``make`` it is there from now on."""
        if not path or self.known.get(path) in (_Is.IMPLIED, _Is.DIRECTORY):
            return path
        done = b""
        links = 0
        pending = path.split(b"/")[::-1]
        while pending:
            part = pending.pop()
            if part in (b"", b".", b".."):
                done = done.rpartition(b"/")[0] if part == b".." else done
                continue
            here = _join(done, part)
            target = self._symlinks.get(here)
            if target is None:
                if make:
                    self._imply(here)
                done = here
                continue
            links += 1
            if links > _MAX_LINKS or len(target) > PATH_LIMIT:
                raise InvalidArchive("too many links above it")
            done = b"" if target.startswith(b"/") else done
            pending += target.split(b"/")[::-1]
        return done

    def _imply(self, path: bytes) -> None:
        if len(path) > PATH_LIMIT:
            raise InvalidArchive(f"a name is longer than {PATH_LIMIT} bytes")
        if self.known.setdefault(path, _Is.IMPLIED) is _Is.OTHER:
            raise InvalidArchive(f"{shown(path)!r} above it is no directory")


class _Layer:
    """One layer of the tar."""

    def __init__(self, layer: OpenLayer, above: _Above) -> None:
        self._open = layer
        self._above = above
        self._orphans: dict[bytes, list[bytes]] = {}
        """Links that are to be seen, by the name of their file, which is not."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        names = _Names()
        for reader, entry, path in self._entries(names):
            if not self._above.shows(path, directory=entry.kind is Kind.DIRECTORY):
                continue
            first = names.first(path)
            if first == path:
                yield from _whole(reader, entry, path)
            elif self._above.shows(first, directory=False):
                yield _head(entry._replace(link=first), path)
            else:
                self._orphans.setdefault(first, []).append(path)
        if self._orphans:
            yield from self._adopted()
        self._above.add(names.known, names.gone, names.closed)

    def _adopted(self) -> Iterator[bytes | memoryview]:
        """Files under the names of their links, as their own are hidden."""
        for reader, entry, path in self._entries(_Names()):
            if path not in self._orphans or entry.kind is Kind.HARD_LINK:
                continue
            first, *others = dict.fromkeys(self._orphans.pop(path))
            yield from _whole(reader, entry, first)
            link = entry._replace(kind=Kind.HARD_LINK, link=first, size=0, xattrs=())
            yield from (_head(link, other) for other in others)

    def _entries(self, names: _Names) -> Iterator[tuple[Reader, Entry, bytes]]:
        """What is more than a whiteout. The stream is read to its end, where its digest is proved."""
        with self._open() as pieces:
            reader = Reader(lambda _size: next(pieces, b""))
            while (entry := reader.next()) is not None:
                try:
                    path = names.place(entry)
                except InvalidArchive as error:
                    raise InvalidArchive(error.problem, entry=shown(entry.name)) from error
                if path is not None:
                    yield reader, entry, path
            for _ in pieces:
                pass


def _whole(reader: Reader, entry: Entry, path: bytes) -> Iterator[bytes | memoryview]:
    yield _head(entry, path)
    if entry.size:
        yield from reader.content()
        yield PADDING[entry.size % len(PADDING)]


def _head(entry: Entry, path: bytes) -> bytes:
    return header(
        (path + b"/" if path else b"./") if entry.kind is Kind.DIRECTORY else path,
        entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        mtime_s=entry.mtime_ns // _NS,
        link=entry.link,
        device=entry.device,
        xattrs=[pair for pair in entry.xattrs if not pair[0].startswith(OVERLAY_XATTRS) and pair[0] not in RECORDS],
    )


def _join(directory: bytes, name: bytes) -> bytes:
    return b"%b/%b" % (directory, name) if directory else name
