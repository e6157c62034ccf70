"""Blobs by digest, laid out so that the root is itself a valid OCI image layout.

A blob becomes visible by one rename after its bytes were hashed and flushed, so what has
a name in ``blobs/`` is whole. Readers verify size and digest to the end.

Spec: image-spec "OCI Image Layout".
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from image.digest import Digest
from image.errors import BlobNotFound, DigestMismatch, InvalidDigest, SizeMismatch, StorageError
from image.paths import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO, Self

    from _typeshed import ReadableBuffer, WriteableBuffer

    from image.descriptor import Descriptor


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn the file system's refusals into one line that says what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: ": free space there, or choose another root with --root",
            errno.EDQUOT: ": the quota is used up; choose another root with --root",
            errno.EACCES: ": run as the owner of the store, or choose another root with --root",
            errno.EPERM: ": run as the owner of the store, or choose another root with --root",
            errno.EROFS: ": choose a writable root with --root",
        }.get(error.errno or 0, "")
        raise StorageError(f"{what}: {(error.strerror or str(error)).lower()}{advice}") from error


class ContentStore:
    """``blobs/<algorithm>/<encoded>`` under ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"

    def create(self) -> None:
        """Make the directories and the ``oci-layout`` marker. Idempotent."""
        (self._blobs / "sha256").mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(exist_ok=True)
        if not (self.root / "oci-layout").exists():
            self.mark()

    def mark(self) -> None:
        """Write ``oci-layout``, which tells that the root is a layout."""
        replace_file(self.root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    def path(self, digest: Digest) -> Path:
        return self._blobs / digest.algorithm / digest.encoded

    def has(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Bytes stored. Raises BlobNotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise BlobNotFound(f"blob {digest} is not in the store {self.root}") from None

    def read(self, descriptor: Descriptor) -> bytes:
        """A small document, whole and verified.

        Raises BlobNotFound, SizeMismatch, DigestMismatch.
        """
        with self.open(descriptor) as blob:
            return blob.read()

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A stream that verifies what it gave: the read that meets the end may raise.

        Raises BlobNotFound now; SizeMismatch and DigestMismatch while reading.
        """
        try:
            file = self.path(descriptor.digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobNotFound(f"blob {descriptor.digest} is not in the store {self.root}") from None
        return VerifyingReader(file, descriptor)  # type: ignore[return-value]  # reads as one does

    def ingest_path(self, name: str) -> Path:
        """Where the unfinished blob of this name is written, on the file system of ``blobs/``."""
        return self._ingest / name

    def digests(self) -> Iterator[Digest]:
        """Every blob on disk, in no order. Files with other names are passed over."""
        for algorithm in ("sha256", "sha512"):
            with suppress(FileNotFoundError), os.scandir(self._blobs / algorithm) as entries:
                for entry in entries:
                    with suppress(InvalidDigest):
                        yield Digest(f"{algorithm}:{entry.name}")

    def delete(self, digest: Digest) -> int:
        """Remove a blob if it is there; the bytes it took."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def discard_ingest(self, prefix: str) -> None:
        """Remove the unfinished blobs of one writer's name."""
        with suppress(FileNotFoundError), os.scandir(self._ingest) as entries:
            for entry in entries:
                if entry.name.startswith(prefix):
                    with suppress(FileNotFoundError):
                        os.unlink(entry.path)


class BlobWriter:
    """Bytes on their way to becoming a blob: a context manager that discards unless committed."""

    def __init__(self, content: ContentStore, path: Path) -> None:
        self._content = content
        self._path = path
        with storage_errors(f"write a blob in {content.root}"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hash = Digest.of(b"").hasher()
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.discard()

    @property
    def root(self) -> Path:
        """Of the store that the blob is for."""
        return self._content.root

    def fileno(self) -> int:
        """The unfinished blob, for another process that writes all of it; then ``size`` is not known here."""
        return self._fd

    def write(self, data: ReadableBuffer) -> int:
        """Append; returns how many bytes. Raises StorageError."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.write_hashed(view)
        return len(view)

    def write_hashed(self, data: ReadableBuffer) -> None:
        """Append bytes whose hash the caller computes and gives to ``commit_as``."""
        view = memoryview(data).cast("B")
        written = 0
        with storage_errors(f"write a blob in {self._content.root}"):
            while written < len(view):
                written += os.write(self._fd, view[written:])
        self.size += written

    def commit(self, expected: Descriptor | None = None) -> Digest:
        """Make the blob visible under its digest, or leave the store unchanged.

        Raises SizeMismatch, DigestMismatch when the bytes are not ``expected``.
        """
        if expected is not None:
            if expected.size != self.size:
                raise SizeMismatch(expected.size, self.size, what=f"blob {expected.digest}")
            if expected.digest.algorithm != "sha256":
                return self._commit_rehashed(expected)
        digest = Digest.from_hash(self._hash)
        if expected is not None and digest != expected.digest:
            raise DigestMismatch(expected.digest, digest, what="blob")
        return self.commit_as(digest)

    def commit_as(self, digest: Digest) -> Digest:
        """Make the blob visible under a digest that the caller computed from the same bytes."""
        target = self._content.path(digest)
        with storage_errors(f"commit blob {digest} in {self._content.root}"):
            target.parent.mkdir(exist_ok=True)
            os.fsync(self._fd)
            os.rename(self._path, target)
            sync_directory(target.parent)
        os.close(self._fd)
        self._fd = -1
        return digest

    def discard(self) -> None:
        """Forget the bytes; after a commit, nothing."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _commit_rehashed(self, expected: Descriptor) -> Digest:
        """The rare digest that is not sha256: read the file once more."""
        hasher = expected.digest.hasher()
        offset = 0
        while chunk := os.pread(self._fd, 1 << 20, offset):
            hasher.update(chunk)
            offset += len(chunk)
        digest = Digest.from_hash(hasher)
        if digest != expected.digest:
            raise DigestMismatch(expected.digest, digest, what="blob")
        return self.commit_as(digest)


class VerifyingReader(io.RawIOBase):
    """Reads exactly ``descriptor.size`` bytes of ``source`` and checks their digest at the end."""

    def __init__(self, source: io.RawIOBase | io.FileIO, descriptor: Descriptor) -> None:
        self._source = source
        self._descriptor = descriptor
        self._hash = descriptor.digest.hasher(descriptor.size)
        self._seen = 0
        self._verified = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = self._source.readinto(view) or 0
        what = f"blob {self._descriptor.digest}"
        self._hash.update(view[:count])
        self._seen += count
        if self._seen > self._descriptor.size or (count == 0 and len(view) and self._seen < self._descriptor.size):
            raise SizeMismatch(self._descriptor.size, self._seen, what=what)
        if self._seen == self._descriptor.size and not self._verified:
            actual = Digest.from_hash(self._hash)
            if actual != self._descriptor.digest:
                raise DigestMismatch(self._descriptor.digest, actual, what="stored blob")
            self._verified = True
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file so that readers see the old bytes or the new, also after a crash.

    Of several writers at once, threads or processes, the last one's bytes stay.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    with storage_errors(f"write {path}"):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
