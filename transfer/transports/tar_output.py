"""A tar file that is written once, front to back, and appears whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from store.content import storage_errors
from store.tar import BLOCK, PADDING, Kind, header
from transfer.ports import Block
from transfer.transports.files import NewFile

if TYPE_CHECKING:
    from types import TracebackType

_END: Final = bytes(2 * BLOCK)
_OCTAL_LIMIT: Final = (8 << 30) - 1


class TarOutput:
    """Writes members to a file, to standard output for ``-``, or by ``write``. A context manager.

    Times are 0 and owners root, so that the same content makes the same archive.
    """

    def __init__(self, path: str, write: Callable[[Block], None] | None = None) -> None:
        self._file: NewFile | None = None
        self._send = write
        self._stream = write is not None or path in {"-", "/dev/stdout"}
        self._path = path
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        if not self._stream:
            self._file = NewFile(Path(os.path.abspath(self._path)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.discard()

    @property
    def _fd(self) -> int:
        return self._file.fd if self._file is not None else sys.stdout.fileno()

    def has(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, data: bytes) -> None:
        """A small member. A name is written once; again, it does nothing."""
        self.add_blocks(name, len(data), [data])

    def add_blocks(self, name: str, size: int, blocks: Iterable[Block]) -> None:
        """A member whose size is known. When ``blocks`` raise, a file goes back to where it was."""
        if self.has(name):
            return
        start = self._tell()
        try:
            self._write(_head(name, size))
            for block in blocks:
                self._write(block)
            self._write(PADDING[size % BLOCK])
        except BaseException:
            self._rewind(start)
            raise
        self._names.add(name)

    def add_unsized(self, name: str, blocks: Iterator[Block]) -> None:
        """A member whose size is known at its end.

        In a file its head is written last; a stream can't go back, so the member is kept in
        an unnamed temporary file first.
        """
        if self._stream:
            self._add_spooled(name, blocks)
            return
        start = self._tell()
        size = 0
        try:
            self._write(_head(name, 0))
            for block in blocks:
                size += len(block)
                self._write(block)
            self._write(PADDING[size % BLOCK])
            self._patch(start, _head(name, size))
        except BaseException:
            self._rewind(start)
            raise
        self._names.add(name)

    def _add_spooled(self, name: str, blocks: Iterator[Block]) -> None:
        with self.spool() as spool:
            for block in blocks:
                spool.write(block)
            self.add_blocks(name, spool.size, spool.blocks())

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """A place on disk for content that is not ready to be a member."""
        with tempfile.TemporaryFile(buffering=0) as file:
            yield Spool(file.fileno())

    def finish(self) -> None:
        """End the archive and put it in place."""
        self._write(_END)
        if self._file is not None:
            self._file.commit()

    def _write(self, data: Block) -> None:
        if self._file is not None:
            self._file.write(data)
            return
        if self._send is not None:
            self._send(data)
            return
        view = memoryview(data)
        with storage_errors("write standard output"):
            while view:
                view = view[os.write(self._fd, view) :]

    def _tell(self) -> int:
        return 0 if self._stream else os.lseek(self._fd, 0, os.SEEK_CUR)

    def _rewind(self, start: int) -> None:
        if not self._stream:
            os.lseek(self._fd, start, os.SEEK_SET)
            os.ftruncate(self._fd, start)

    def _patch(self, start: int, head: bytes) -> None:
        with storage_errors(f"write {self._path}"):
            os.pwrite(self._fd, head, start)


class Spool:
    """An unnamed file: written once, then read once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0

    def write(self, data: Block) -> None:
        view = memoryview(data)
        self.size += len(view)
        with storage_errors(f"keep a layer in {tempfile.gettempdir()}"):
            while view:
                view = view[os.write(self._fd, view) :]

    def blocks(self) -> Iterator[bytes]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return iter(lambda: os.read(self._fd, 1 << 20), b"")


def _head(name: str, size: int) -> bytes:
    """One block, whatever the size: a head that is written last must fit where the first one was."""
    if size <= _OCTAL_LIMIT:
        return header(name.encode(), Kind.FILE, mode=0o644, size=size)
    block = bytearray(header(name.encode(), Kind.FILE, mode=0o644))
    block[124:136] = b"\x80" + size.to_bytes(11, "big")  # base 256, as GNU tar writes it
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
