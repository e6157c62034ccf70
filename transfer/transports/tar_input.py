"""The members of a tar file, found without reading their content.

A tar that comes as a stream, or compressed, is first copied to an unnamed temporary file
on disk: archives of images keep their table of contents at the end. Members are looked
up by name in a table, so a hostile name can at worst fail to be found.
"""

from __future__ import annotations

import os
import posixpath
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from image.errors import InvalidArchive, ReferenceNotFound, StorageError
from image.value import dataclass
from store.compression import PREFIX_SIZE, decompressor, detect
from store.content import storage_errors
from store.tar import BLOCK, Kind
from store.tar_reader import Reader

if TYPE_CHECKING:
    from types import TracebackType

STREAMS: Final = frozenset({"-", "/dev/stdin"})
_MAX_MEMBERS: Final = 100_000
_MAX_HOPS: Final = 8
_MAX_SPOOL: Final = 1 << 40
"""Bytes that a compressed archive may inflate to."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside the tar: where its bytes begin, and how many they are."""

    offset: int
    size: int


class TarInput:
    """A tar file open for reading at any place, by any thread. Close it."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        try:
            self._scan()
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open(cls, path: str) -> TarInput:
        """The archive at ``path``; ``-`` is standard input. gzip, zstd, xz and bzip2 are undone.

        Raises ReferenceNotFound when there is no such file, InvalidArchive when it is no tar.
        """
        if path in STREAMS:
            return cls.spooled(_reader(sys.stdin.fileno()), "standard input")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ReferenceNotFound(f"archive {path} does not exist") from None
        except OSError as error:
            raise StorageError(f"open archive {path}: {(error.strerror or '').lower()}") from error
        try:
            if os.path.isdir(path):
                raise InvalidArchive(f"{path} is a directory")
            seekable = os.path.isfile(path) and detect(os.pread(fd, PREFIX_SIZE, 0)) == "uncompressed"
            return cls(os.dup(fd), path) if seekable else cls.spooled(_reader(fd), path)
        finally:
            os.close(fd)

    @classmethod
    def spooled(cls, read: Callable[[int], bytes], name: str) -> TarInput:
        """The archive that ``read(n)`` gives, kept in an unnamed file on disk. Raises InvalidArchive, StorageError."""
        return cls(_spooled(read, name), name)

    def find(self, name: str) -> Member | None:
        """A member by its name, links inside the archive followed."""
        name = _clean(name)
        for _ in range(_MAX_HOPS):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                return None
            name = self._links[name]
        raise InvalidArchive("links lead to each other", entry=name)

    def need(self, name: str) -> Member:
        member = self.find(name)
        if member is None:
            raise InvalidArchive(f"{self.name} has no {name[:200]!r}")
        return member

    def read(self, member: Member, limit: int) -> bytes:
        """A small member, whole."""
        if member.size > limit:
            raise InvalidArchive(f"a document in {self.name} has {member.size} bytes, over the limit of {limit}")
        data = os.pread(self.fd, member.size, member.offset)
        if len(data) != member.size:
            raise InvalidArchive(f"{self.name} is truncated")
        return data

    def _scan(self) -> None:
        end = os.fstat(self.fd).st_size
        offset = count = 0
        while offset < end:
            read = _BlockReader(self.fd, offset)
            try:
                entry = Reader(read).next()
            except InvalidArchive as error:
                if offset:
                    raise InvalidArchive(f"{self.name}: {error.problem}") from error
                raise InvalidArchive(f"{self.name} is not a tar archive ({error.problem})") from error
            if entry is None:
                break
            count += 1
            if count > _MAX_MEMBERS:
                raise InvalidArchive(f"{self.name} has more than {_MAX_MEMBERS} members")
            name = _clean(entry.name.decode("utf-8", "surrogateescape"))
            link = entry.link.decode("utf-8", "surrogateescape")
            if entry.kind is Kind.FILE:
                self._files[name] = Member(read.offset, entry.size)
            elif entry.kind is Kind.HARD_LINK:
                self._links[name] = _clean(link)
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = _clean(posixpath.join(posixpath.dirname(name), link))
            offset = read.offset + entry.size + -entry.size % BLOCK
        if offset > end:
            raise InvalidArchive(f"{self.name} is truncated")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _BlockReader:
    """Gives a tar reader one block at a time, so that ``offset`` is just past what it has used."""

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self.offset = offset

    def __call__(self, _size: int) -> bytes:
        block = os.pread(self._fd, BLOCK, self.offset)
        self.offset += len(block)
        return block


def _clean(name: str) -> str:
    """A name as a key of the table. What leads out of the archive leads nowhere."""
    return posixpath.normpath("/" + name).lstrip("/")


def _reader(fd: int) -> Callable[[int], bytes]:
    return lambda size: os.read(fd, size)


def _spooled(read: Callable[[int], bytes], name: str) -> int:
    """An unnamed file on disk with what ``read`` gives, decompressed; the memory used does not grow."""
    with storage_errors(f"keep {name} in {tempfile.gettempdir()}"), tempfile.TemporaryFile(buffering=0) as spool:
        _copy(read, name, spool.write)
        return os.dup(spool.fileno())


def _copy(read: Callable[[int], bytes], name: str, write: Callable[[memoryview], int]) -> None:
    data = read(1 << 20)
    while 0 < len(data) < PREFIX_SIZE and (more := read(1 << 20)):
        data += more
    if not data:
        raise InvalidArchive(f"{name} is empty")
    codec = decompressor(detect(data[:PREFIX_SIZE]))
    size = 0
    while data:
        for piece in codec.decompress(data):
            size += len(piece)
            if size > _MAX_SPOOL:
                raise InvalidArchive(f"{name} inflates to more than {_MAX_SPOOL} bytes")
            view = memoryview(piece)
            while view:
                view = view[write(view) :]
        data = read(1 << 20)
    codec.close()
