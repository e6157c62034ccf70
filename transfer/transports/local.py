"""``store:name``: Tierce's own store, the place meant by a name without a transport.

As a source it gives what the name stands for, an index included. As a sink it takes one
platform unless it is told to hold an index, and unpacks layers while others still arrive.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, chain_ids
from image.errors import BlobNotFound, ReferenceNotFound
from image.manifest import Index, Manifest, decode_manifest
from image.reference import Reference
from store.compression import PREFIX_SIZE, detect
from store.metadata import ImageLayer
from store.store import Session, Store
from store.unpack import Unpacked
from store.unpacking import Unpacking
from transfer.ports import Adopted, Blocks
from transfer.progress import Progress, UnpackDone, UnpackStarted, silent
from transfer.transports.files import open_file
from transfer.transports.local_ends import LocalSink, LocalSource

if TYPE_CHECKING:
    from types import TracebackType


def find_image(store: Store, text: str) -> Descriptor:
    """The image that a user means by a name, a digest, or the start of an id.

    Raises ReferenceNotFound; InvalidReference when this can be neither.
    """
    if by_id := _by_id(store, text):
        return by_id
    reference = Reference.parse(text).with_default_tag()
    if reference.digest is None:
        record = store.metadata.name(str(reference))
        if record is None:
            raise ReferenceNotFound(f"image {reference.familiar} not found in the store")
        return record.target
    for name in store.metadata.names():
        if Reference.parse(name.name).repository == reference.repository and str(reference.digest) in {
            name.source, str(name.target.digest),
        }:  # fmt: skip
            return name.target
    raise ReferenceNotFound(f"image {reference.familiar} not found in the store")


def _by_id(store: Store, text: str) -> Descriptor | None:
    prefix = text.removeprefix("sha256:")
    if len(prefix) < 4 or not all(letter in "0123456789abcdef" for letter in prefix):
        return None
    named = store.metadata.name(str(Reference.parse(text).with_default_tag())) if len(text) < 64 else None
    if named is not None:
        return None
    found = {
        image.target.digest: image.target
        for image in store.metadata.images()
        if image.target.digest.encoded.startswith(prefix) or image.config.startswith(f"sha256:{prefix}")
    }
    if len(found) > 1:
        raise ReferenceNotFound(f"image id {text} is ambiguous: {len(found)} images start with it")
    return next(iter(found.values()), None)


class StoreSource(LocalSource):
    """An image of the store, held by a session of its own while it is read."""

    holds_indexes = True

    def __init__(self, store: Store, text: str) -> None:
        self._store = store
        self._text = text
        self._stack = ExitStack()
        self._session: Session | None = None

    @property
    def name(self) -> str:
        return f"store:{self._text}"

    def __enter__(self) -> Self:
        self._session = self._stack.enter_context(self._store.session())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()
        self._session = None

    def root(self) -> Descriptor:
        target = find_image(self._store, self._text)
        if self._session is not None:
            for blob in self._store.facts(target).blobs:
                if not self._session.reuse(blob.digest):
                    raise BlobNotFound(f"blob {blob.digest} of {self.name} is not in the store {self._store.root}")
        return target

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        return decode_manifest(self._store.content.read(descriptor), descriptor.media_type)

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Blocks]:
        return open_file(self._store.content.path(descriptor.digest), descriptor)


class StoreSink(LocalSink):
    """A place in the store under any number of names.

    ``origin`` is the digest that the names have where the image comes from. With ``unpack``
    the layers of an image are ready to run when it becomes visible.
    """

    concurrency = 4

    def __init__(
        self,
        store: Store,
        names: Iterable[Reference] = (),
        *,
        holds_indexes: bool = False,
        unpack: bool = False,
        origin: str = "",
        progress: Progress = silent,
    ) -> None:
        self.holds_indexes = holds_indexes
        self._store = store
        self._names = tuple(names)
        self._unpack = unpack and not holds_indexes
        self._origin = origin
        self._progress = progress
        self._stack = ExitStack()
        self._session: Session | None = None
        self._manifest: Manifest | None = None
        self._unpacking: Unpacking | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"store:{self._names[0].familiar}" if self._names else "store:"

    @property
    def session(self) -> Session:
        """What holds the blobs until the image does. Only inside the context."""
        assert self._session is not None, "used outside its context"
        return self._session

    def __enter__(self) -> Self:
        self._session = self._stack.enter_context(self._store.session())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._unpacking = None
        self._stack.close()
        self._session = None

    def begin(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def find_layer(self, diff_id: DiffID) -> Descriptor | None:
        digest = self._store.metadata.blob_of(diff_id)
        if digest is None or not self.session.reuse(digest):
            return None
        path = self._store.content.path(digest)
        with path.open("rb") as file:
            codec = detect(file.read(PREFIX_SIZE))
        if codec in {"gzip", "zstd"}:
            media_type = media_types.oci_layer("gzip" if codec == "gzip" else "zstd")
            return Descriptor(media_type, digest, self._store.content.size(digest))
        return None

    def adopt(self, blob: Descriptor, _repository: Reference | None) -> Adopted | None:
        if not self.session.reuse(blob.digest) or self._store.content.size(blob.digest) != blob.size:
            return None
        self._arrived(blob)
        return "skipped"

    def put_blob(self, blob: Descriptor, blocks: Blocks) -> None:
        room, what = self._store.room(), f"storing blob {blob.digest}"
        room.check(blob.size, what)
        with self.session.writer() as writer:
            for block in blocks:
                room.take(len(block), what)
                writer.write_hashed(block)
            writer.commit_as(blob.digest)
        self._arrived(blob)

    def put_new_blob(self, media_type: str, blocks: Blocks) -> Descriptor:
        room = self._store.room()
        with self.session.writer() as writer:
            for block in blocks:
                room.take(len(block), "storing a layer")
                writer.write(block)
            digest = writer.commit()
            return Descriptor(media_type, digest, writer.size)

    def _arrived(self, blob: Descriptor) -> None:
        """Unpack a layer as soon as its blob and the config are there."""
        with self._lock:
            manifest = self._manifest
            if not self._unpack or manifest is None:
                return
            if self._unpacking is None and blob.digest == manifest.config.digest:
                self._unpacking = self._start_unpacking(manifest)
            if self._unpacking is not None:
                self._unpacking.start(blob)

    def _start_unpacking(self, manifest: Manifest) -> Unpacking | None:
        if manifest.config.media_type not in media_types.CONFIGS:
            return None
        if any(media_types.is_foreign(layer.media_type) for layer in manifest.layers):
            return None  # such layers stay where they are, so this image is kept and copied but not run
        config = ImageConfig.decode(self._store.content.read(manifest.config))
        if len(config.diff_ids) != len(manifest.layers):
            return None  # ``commit`` says what is wrong with it
        layers = [
            (ImageLayer(chain_id, diff_id, layer.digest), layer)
            for chain_id, diff_id, layer in zip(
                chain_ids(config.diff_ids), config.diff_ids, manifest.layers, strict=True
            )
        ]
        return self._stack.enter_context(Unpacking(self.session, layers, self._report))

    def _report(self, layer: Descriptor, unpacked: Unpacked | None) -> None:
        self._progress(UnpackStarted(layer) if unpacked is None else UnpackDone(layer, unpacked.size))

    def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether an image of the store is this; its blobs are then held."""
        if not any(image.target.digest == descriptor.digest for image in self._store.metadata.images()):
            return False
        if self._unpack:
            return False  # blobs are found one by one, and layers unpacked that are not yet
        return all(self.session.reuse(blob.digest) for blob in self._store.facts(descriptor).blobs)

    def put_manifest(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        with self.session.writer() as writer:
            writer.write(manifest.raw)
            writer.commit(descriptor)

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self.put_manifest(descriptor, manifest)
        if self._unpacking is not None:
            self._unpacking.finish()
        self._store.add_image(descriptor, self._names, source=self._origin)
