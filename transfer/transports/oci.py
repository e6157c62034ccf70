"""``oci:path[:ref|:@N]``: an image layout in a directory. Holds indexes.

Other images of the layout stay as they are. Blobs are whole or absent, and the index
names an image only after all its blobs are there, so an interrupted copy leaves at most
blobs that nothing names.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from image.descriptor import Descriptor
from image.digest import Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import BlobNotFound, ReferenceNotFound
from image.manifest import Index, Manifest, decode_manifest
from image.reference import Reference
from store.content import replace_file, storage_errors
from transfer.ports import Adopted, Blocks
from transfer.transports import layout
from transfer.transports.files import NewFile, open_file, read_document, read_limited
from transfer.transports.local_ends import LocalSink, LocalSource

if TYPE_CHECKING:
    from types import TracebackType


def layout_tags(path: Path) -> list[str] | None:
    """The names of a layout's images, in their order; None when there is no layout."""
    if not (path / "index.json").exists():
        return None
    raw = read_limited(path / "index.json", MAX_DOCUMENT_SIZE, lambda: ReferenceNotFound(f"{path} is no OCI layout"))
    return [name for entry in layout.decode_index(raw).manifests if (name := entry.annotations.get(layout.REF_NAME))]


class OciSource(LocalSource):
    """An image of a layout directory."""

    holds_indexes = True

    def __init__(self, path: Path, wanted: str = "", shared_blobs: Path | None = None) -> None:
        self._path = path
        self._blobs = shared_blobs or path / "blobs"
        self._wanted = wanted

    @property
    def name(self) -> str:
        return f"oci:{self._path}" + (f":{self._wanted}" if self._wanted else "")

    def root(self) -> Descriptor:
        """Raises ReferenceNotFound when there is no such image, or no layout."""
        missing = ReferenceNotFound(f"{self._path} is not an OCI image layout: it has no index.json")
        raw = read_limited(self._path / "index.json", MAX_DOCUMENT_SIZE, lambda: missing)
        return layout.choose(layout.decode_index(raw), self._wanted, str(self._path))

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        with self.open_blob(descriptor) as blocks:
            return decode_manifest(read_document(blocks, descriptor), descriptor.media_type)

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Blocks]:
        return open_file(_blob_path(self._blobs, descriptor.digest), descriptor)


class OciSink(LocalSink):
    """A place in a layout directory, which is made when absent. ``shared_blobs`` are other layouts' too."""

    holds_indexes = True
    concurrency = 4

    def __init__(self, path: Path, ref: str = "", shared_blobs: Path | None = None) -> None:
        self._path = path
        self._blobs = shared_blobs or path / "blobs"
        self._shared = shared_blobs is not None
        self._ref = ref
        self._is_new = False
        self._put: set[Path] = set()
        self._needed: set[Path] = set()

    @property
    def name(self) -> str:
        return f"oci:{self._path}" + (f":{self._ref}" if self._ref else "")

    def __enter__(self) -> Self:
        with storage_errors(f"write {self.name}"):
            self._is_new = not self._path.exists()
            for directory in (self._path, self._blobs):
                directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with _locked(self._path):
            if not (self._path / "index.json").exists():
                self._remove_what_was_put()

    def _remove_what_was_put(self) -> None:
        """Undo a layout that never came to be: our blobs, and directories that are empty then.

        Blobs that others share stay, as another layout may have taken them meanwhile.
        """
        mine = [] if self._shared else [*self._blobs.iterdir(), self._blobs]
        for path in () if self._shared else self._put:
            path.unlink(missing_ok=True)
        for directory in (*mine, *([self._path] if self._is_new else [])):
            with suppress(OSError):
                directory.rmdir()

    def adopt(self, blob: Descriptor, _repository: Reference | None) -> Adopted | None:
        path = _blob_path(self._blobs, blob.digest)
        with suppress(OSError):
            if path.stat().st_size == blob.size:
                self._needed.add(path)
                return "skipped"
        return None

    def put_blob(self, blob: Descriptor, blocks: Blocks) -> None:
        path = _blob_path(self._blobs, blob.digest)
        with storage_errors(f"write {self.name}"):
            path.parent.mkdir(exist_ok=True)
        with NewFile(path) as file:
            for block in blocks:
                file.write(block)
            self._put.add(path)
            file.commit()

    def put_new_blob(self, media_type: str, blocks: Blocks) -> Descriptor:
        hasher = Digest.of(b"").hasher()
        size = 0
        with storage_errors(f"write {self.name}"):
            (self._blobs / "sha256").mkdir(exist_ok=True)
        with NewFile(self._blobs / "sha256" / "new") as file:
            for block in blocks:
                hasher.update(block)
                size += len(block)
                file.write(block)
            digest = Digest.from_hash(hasher)
            file.target = _blob_path(self._blobs, digest)
            self._put.add(file.target)
            file.commit()
        return Descriptor(media_type, digest, size)

    def has_manifest(self, _descriptor: Descriptor) -> bool:
        return False  # blobs that nothing names may have been removed: each is looked at

    def put_manifest(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        if self.adopt(descriptor, None) is None:
            self.put_blob(descriptor, iter([manifest.raw]))

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self.put_manifest(descriptor, manifest)
        with _locked(self._path), storage_errors(f"write {self.name}"):
            for path in self._put | self._needed:
                if not path.exists():  # another copy, which made the blob, failed and took it back
                    raise BlobNotFound(f"write {self.name}: blob {path.name} disappeared meanwhile: try again")
            index = self._path / "index.json"
            raw = read_limited(index, MAX_DOCUMENT_SIZE, FileNotFoundError) if index.exists() else None
            if raw is not None:
                layout.decode_index(raw)
            if not (self._path / "oci-layout").exists():
                replace_file(self._path / "oci-layout", layout.LAYOUT_FILE)
            replace_file(index, layout.index_with(raw, descriptor, self._ref))


def _blob_path(blobs: Path, digest: Digest) -> Path:
    return blobs / digest.algorithm / digest.encoded


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two copies into one layout must not lose each other's name; the directory is the lock."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
