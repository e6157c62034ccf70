"""``oci-archive:path[:ref|:@N]``: an image layout in a tar. Holds indexes. ``-`` is a standard stream."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self

from image.descriptor import Descriptor
from image.digest import Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import BlobNotFound, InvalidArchive, InvalidInput
from image.manifest import Index, Manifest, decode_manifest
from image.reference import Reference
from transfer.ports import Adopted, Blocks
from transfer.transports import layout
from transfer.transports.files import open_part, read_document
from transfer.transports.local_ends import LocalSink, LocalSource
from transfer.transports.tar_input import TarInput
from transfer.transports.tar_output import TarOutput

if TYPE_CHECKING:
    from types import TracebackType


class OciArchiveSource(LocalSource):
    """An image of an archive. Without ``tar`` it opens ``path`` itself."""

    holds_indexes = True

    def __init__(self, path: str, wanted: str = "", *, tar: TarInput | None = None) -> None:
        self._path = path
        self._wanted = wanted
        self._stack = ExitStack()
        self._tar = tar

    @property
    def name(self) -> str:
        return f"oci-archive:{self._path}" + (f":{self._wanted}" if self._wanted else "")

    def __enter__(self) -> Self:
        if self._tar is None:
            self._tar = self._stack.enter_context(TarInput.open(self._path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def _open(self) -> TarInput:
        assert self._tar is not None, "used outside its context"
        return self._tar

    def root(self) -> Descriptor:
        return layout.choose(_read_index(self._open), self._wanted, self._path)

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        with self.open_blob(descriptor) as blocks:
            return decode_manifest(read_document(blocks, descriptor), descriptor.media_type)

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Blocks]:
        member = self._open.find(_blob_name(descriptor.digest))
        if member is None:
            raise BlobNotFound(f"blob {descriptor.digest} is not in {self._path}")
        if member.size != descriptor.size:
            raise InvalidArchive(f"blob {descriptor.digest} has {member.size} bytes, expected {descriptor.size}")
        return open_part(self._open.fd, member.offset, descriptor)


class OciArchiveSink(LocalSink):
    """A new archive that replaces what is at ``path``."""

    holds_indexes = True
    concurrency = 1

    def __init__(self, path: str, ref: str = "") -> None:
        self._path = path
        self._ref = ref
        self._tar = TarOutput(path)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"oci-archive:{self._path}" + (f":{self._ref}" if self._ref else "")

    def __enter__(self) -> Self:
        self._tar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._tar.__exit__(kind, error, tb)

    def begin(self, _manifest: Manifest) -> None:
        """The marker comes first, so that file(1) and people see early what this is."""
        self._tar.add("oci-layout", layout.LAYOUT_FILE)

    def adopt(self, blob: Descriptor, _repository: Reference | None) -> Adopted | None:
        return "skipped" if self._tar.has(_blob_name(blob.digest)) else None

    def put_blob(self, blob: Descriptor, blocks: Blocks) -> None:
        with self._lock:
            self._tar.add_blocks(_blob_name(blob.digest), blob.size, blocks)

    def put_new_blob(self, media_type: str, blocks: Blocks) -> Descriptor:
        """A name comes before its content in a tar, so the content is kept on disk meanwhile."""
        hasher = Digest.of(b"").hasher()
        size = 0
        with self._lock, self._tar.spool() as spool:
            for block in blocks:
                hasher.update(block)
                size += len(block)
                spool.write(block)
            blob = Descriptor(media_type, Digest.from_hash(hasher), size)
            self._tar.add_blocks(_blob_name(blob.digest), size, spool.blocks())
        return blob

    def put_manifest(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self._tar.add(_blob_name(descriptor.digest), manifest.raw)

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self._tar.add("oci-layout", layout.LAYOUT_FILE)
        self.put_manifest(descriptor, manifest)
        self._tar.add("index.json", layout.index_with(None, descriptor, self._ref))
        self._tar.finish()


def archived_names(tar: TarInput) -> list[tuple[Reference, ...]]:
    """The names of each image of an archive, as far as they are names of images."""
    return [_names(entry) for entry in _read_index(tar).manifests]


def _names(entry: Descriptor) -> tuple[Reference, ...]:
    """A full name where there is one: docker and skopeo may write the bare tag, which names nothing."""
    text = entry.annotations.get("io.containerd.image.name") or entry.annotations.get(layout.REF_NAME) or ""
    try:
        return (Reference.parse(text).with_default_tag(),) if ":" in text or "/" in text else ()
    except InvalidInput:
        return ()


def _read_index(tar: TarInput) -> Index:
    member = tar.find("index.json")
    if member is None:
        hint = ": it is a docker archive, use docker-archive:" if tar.find("manifest.json") else ""
        raise InvalidArchive(f"{tar.name} is not an OCI archive, it has no index.json{hint}")
    return layout.decode_index(tar.read(member, MAX_DOCUMENT_SIZE))


def _blob_name(digest: Digest) -> str:
    return os.path.join("blobs", digest.algorithm, digest.encoded)
