"""Blobs in files and in parts of files, and files that replace others whole."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from image.descriptor import Descriptor
from image.document import MAX_DOCUMENT_SIZE
from image.errors import BlobNotFound, InvalidInput, InvalidManifest, StorageError
from store.content import storage_errors, sync_directory
from transfer.ports import Block, Blocks
from transfer.streams import VerifiedBlocks

_BLOCK: Final = 1 << 20


@contextmanager
def open_file(path: Path, blob: Descriptor) -> Iterator[Blocks]:
    """A blob that is a file of its own, verified. Raises BlobNotFound."""
    try:
        file = path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        raise BlobNotFound(f"blob {blob.digest} is not in {path.parent}") from None
    except OSError as error:
        raise StorageError(f"read {path}: {(error.strerror or '').lower()}") from error
    with file, VerifiedBlocks(lambda view: file.readinto(view) or 0, blob) as blocks:
        yield blocks


def file_blocks(path: Path) -> Generator[bytes, None, None]:
    """Any file's content, a block at a time. Raises StorageError."""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise StorageError(f"read {path}: {(error.strerror or 'failed').lower()}") from error


@contextmanager
def open_part(fd: int, offset: int, blob: Descriptor) -> Iterator[Blocks]:
    """A blob that is ``blob.size`` bytes of an open file, verified."""
    position, end = offset, offset + blob.size

    def read_into(view: memoryview) -> int:
        nonlocal position
        count = os.preadv(fd, [view[: end - position]], position) if position < end else 0
        position += count
        return count

    with VerifiedBlocks(read_into, blob) as blocks:
        yield blocks


def read_document(blocks: Blocks, descriptor: Descriptor) -> bytes:
    """A small blob, whole. Raises InvalidManifest when it is too large to be a document."""
    if descriptor.size > MAX_DOCUMENT_SIZE:
        raise InvalidManifest("", f"{descriptor.digest} is larger than {MAX_DOCUMENT_SIZE} bytes")
    return b"".join(bytes(block) for block in blocks)


class NewFile:
    """A file under a temporary name beside ``target`` until ``commit``. A context manager.

    Raises InvalidInput where something else than a file would be replaced; StorageError.
    """

    def __init__(self, target: Path, mode: int = 0o644) -> None:
        _refuse_special(target)
        self.target = target
        self._temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        with storage_errors(f"write {target}"):
            self.fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def write(self, data: Block) -> None:
        view = memoryview(data)
        with storage_errors(f"write {self.target}"):
            while view:
                view = view[os.write(self.fd, view) :]

    def commit(self) -> None:
        """Put the whole file in place of what was there."""
        with storage_errors(f"write {self.target}"):
            os.fsync(self.fd)
            os.rename(self._temporary, self.target)
            sync_directory(self.target.parent)
        self._close()

    def discard(self) -> None:
        """Leave ``target`` as it was; after a commit, nothing."""
        if self.fd >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)
            self._close()

    def _close(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.discard()


def _refuse_special(target: Path) -> None:
    """A rename over /dev/null would take the device from the whole machine."""
    with suppress(OSError):
        kind = stat.S_IFMT(target.stat().st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise InvalidInput(f"cannot write {target}: it is a device or a pipe, not a file (- is standard output)")


def read_limited(path: Path, limit: int, missing: Callable[[], Exception]) -> bytes:
    """A small file, whole. Raises what ``missing`` makes when it is not there."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise missing() from None
    except OSError as error:
        raise StorageError(f"read {path}: {(error.strerror or '').lower()}") from error
    if len(data) > limit:
        raise InvalidManifest("", f"{path} is larger than {limit} bytes")
    return data
