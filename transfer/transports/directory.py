"""``dir:path``: an image as loose files, as skopeo writes them. Holds indexes.

version             "Directory Transport Version: 1.1"
manifest.json       the image's manifest or index
<hex>               blobs
<hex>.manifest.json manifests of an index
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from image.descriptor import Descriptor
from image.digest import Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import DigestMismatch, InvalidInput, ReferenceNotFound
from image.manifest import Index, Manifest, decode_manifest
from image.reference import Reference
from store.content import replace_file, storage_errors
from transfer.ports import Adopted, Blocks
from transfer.transports.files import NewFile, open_file, read_limited
from transfer.transports.local_ends import LocalSink, LocalSource

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from types import TracebackType

_VERSION: Final = b"Directory Transport Version: 1.1\n"


class DirectorySource(LocalSource):
    """The image of a directory."""

    holds_indexes = True

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return f"dir:{self._path}"

    def root(self) -> Descriptor:
        raw = self._read("manifest.json")
        return decode_manifest(raw).descriptor

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        nested = f"{descriptor.digest.encoded}.manifest.json"
        raw = self._read(nested if (self._path / nested).exists() else "manifest.json")
        actual = Digest.of(raw, descriptor.digest.algorithm)
        if actual != descriptor.digest:
            raise DigestMismatch(descriptor.digest, actual, what=f"manifest in {self.name}")
        return decode_manifest(raw, descriptor.media_type)

    def _read(self, name: str) -> bytes:
        missing = ReferenceNotFound(f"{self._path} is no image directory: it has no {name}")
        return read_limited(self._path / name, MAX_DOCUMENT_SIZE, lambda: missing)

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Blocks]:
        return open_file(self._path / descriptor.digest.encoded, descriptor)


class DirectorySink(LocalSink):
    """A directory that is empty, absent, or was written by this transport before."""

    holds_indexes = True
    concurrency = 4

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_new = False
        self._committed = False
        self._put: set[Path] = set()

    @property
    def name(self) -> str:
        return f"dir:{self._path}"

    def __enter__(self) -> Self:
        with storage_errors(f"write {self.name}"):
            self._is_new = not self._path.exists()
            self._path.mkdir(parents=True, exist_ok=True)
            used = any(self._path.iterdir())
        if used and not (self._path / "version").exists():
            raise InvalidInput(f"{self._path} is not empty, and was not written as dir: before")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._committed:
            return
        for path in self._put:
            path.unlink(missing_ok=True)
        if self._is_new:
            with suppress(OSError):
                self._path.rmdir()

    def adopt(self, _blob: Descriptor, _repository: Reference | None) -> Adopted | None:
        return None

    def put_blob(self, blob: Descriptor, blocks: Blocks) -> None:
        self._write(self._path / blob.digest.encoded, blocks)

    def _write(self, path: Path, blocks: Blocks) -> None:
        if not path.exists():
            self._put.add(path)
        with NewFile(path) as file:
            for block in blocks:
                file.write(block)
            file.commit()

    def put_new_blob(self, media_type: str, blocks: Blocks) -> Descriptor:
        hasher = Digest.of(b"").hasher()
        size = 0
        with NewFile(self._path / "new") as file:
            for block in blocks:
                hasher.update(block)
                size += len(block)
                file.write(block)
            digest = Digest.from_hash(hasher)
            file.target = self._path / digest.encoded
            self._put.add(file.target)
            file.commit()
        return Descriptor(media_type, digest, size)

    def put_manifest(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self._write(self._path / f"{descriptor.digest.encoded}.manifest.json", iter([manifest.raw]))

    def commit(self, _descriptor: Descriptor, manifest: Manifest | Index) -> None:
        replace_file(self._path / "version", _VERSION)
        replace_file(self._path / "manifest.json", manifest.raw)
        self._committed = True
