"""Caches of other builds: opened before a build, written after it.

What they say is ``builder.cache_export``; here their documents and blobs move with the
transports. Opening a cache reads its documents alone: a blob moves when a step needs it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Final, Self, assert_never

from builder.cache_export import (
    CACHE_CONFIG,
    CacheContents,
    MountRecord,
    decode_cache,
    decode_inline,
    encode_cache,
    encode_inline,
    records_of,
)
from builder.cache_words import CacheExport, InlineCache, LocalCache, RegistryCache
from builder.dockerfile.mounts import CacheMount
from builder.graph import Graph, RunCommand, inputs_first
from builder.progress import Progress, Warned
from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import BlobNotFound, DigestMismatch, NotFound, TierceError
from image.manifest import Index, Manifest
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass, replace
from store.cache_mounts import CacheMounts, mount_key
from store.layer_blob import pack_blob, unpack_blob
from store.metadata import CacheRecord
from store.recompress import recompressed
from store.store import Session, Store
from tierce.build.building import SolvedBuild
from transfer.copy import CopyOptions, copy
from transfer.ports import Blocks, Sink, Source
from transfer.registries import Registries
from transfer.transports.files import open_file, read_document
from transfer.transports.local import StoreSource
from transfer.transports.local_ends import LocalSource
from transfer.transports.oci import OciSink, OciSource
from transfer.transports.registry import RegistrySink, RegistrySource

_ASKS: Final = 8
"""Questions to a registry at once: each takes a round trip."""
_MAX_IMAGES: Final = 16
"""Images of one index that are looked at for inline records."""


class OpenedCache:
    """A cache whose documents were read. Implements ``builder.ports.RemoteCache``."""

    def __init__(
        self, source: Source, has: Callable[[Descriptor], bool], contents: CacheContents, *, asks: int = 1
    ) -> None:
        """``has`` asks for a blob; ``asks`` are made at once, for what is likely to be wanted next."""
        self._source = source
        self._has = has
        self.contents = contents
        self._asks = asks
        records = contents.records.values()
        self._order = list(dict.fromkeys(record.blob.digest for record in records if record.blob is not None))
        self._blobs = {record.blob.digest: record.blob for record in records if record.blob is not None}
        self._lock = threading.Lock()
        self._present: dict[Digest, bool] = {}
        self._fetching: defaultdict[Digest, threading.Lock] = defaultdict(threading.Lock)

    def find(self, key: str) -> CacheRecord | None:
        record = self.contents.records.get(key)
        return record if record is None or record.blob is None or self.has(record.blob) else None

    def has(self, blob: Descriptor) -> bool:
        """Whether the blob can be had; asked once, together with the next ones of the records' order."""
        with self._lock:
            if blob.digest not in self._present:
                self._ask([blob, *self._next(blob.digest)])
            return self._present[blob.digest]

    def _next(self, digest: Digest) -> list[Descriptor]:
        if self._asks == 1 or digest not in self._blobs:
            return []
        place = self._order.index(digest)
        following = [known for known in self._order[place + 1 :] if known not in self._present]
        return [self._blobs[known] for known in following[: self._asks - 1]]

    def _ask(self, blobs: Sequence[Descriptor]) -> None:
        if len(blobs) == 1:
            self._present[blobs[0].digest] = self._has(blobs[0])
            return
        with ThreadPoolExecutor(len(blobs), "ask") as pool:
            for blob, present in zip(blobs, pool.map(self._has, blobs), strict=True):
                self._present[blob.digest] = present

    def fetch(self, session: Session, blob: Descriptor) -> None:
        with self._lock:
            lock = self._fetching[blob.digest]
        with lock:
            if session.reuse(blob.digest):
                return
            with self._source.open_blob(blob) as blocks, session.writer() as writer:
                for block in blocks:
                    writer.write_hashed(block)
                writer.commit_as(blob.digest)

    def abort(self) -> None:
        self._source.abort()

    def fill_mount(self, name: str, directory: Path) -> bool:
        mount = self.contents.mounts.get(name)
        if mount is None or not self.has(mount.blob):
            return False
        compression = media_types.layer_compression(mount.blob.media_type)
        with self._source.open_blob(mount.blob) as blocks:
            read = _reader(blocks)
            diff_id, _ = unpack_blob(read, mount.blob, compression, directory, whiteouts="keep")
        if diff_id != mount.diff_id:
            raise DigestMismatch(mount.diff_id, diff_id, what=f"content of cache mount {mount.id}")
        return True


def _reader(blocks: Blocks) -> Callable[[int], bytes]:
    """``read(n)`` over blocks of any size."""
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        if not rest:
            rest = bytes(next(blocks, b""))
        piece, rest = rest[:size], rest[size:]
        return piece

    return read


class CacheImporter:
    """Opens caches and keeps them open for one build. A context manager."""

    def __init__(self, store: Store, registries: Callable[[], Registries], progress: Progress) -> None:
        self._store = store
        self._registries = registries
        self._progress = progress
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, places: Iterable[RegistryCache | LocalCache]) -> list[OpenedCache]:
        """Those that can be opened; for the others a warning: a build without them is only slower."""
        opened: list[OpenedCache] = []
        for place in places:
            try:
                opened.append(self._open(place))
            except TierceError as error:
                self._progress(Warned("", f"cache of {_shown(place)} is not used: {error}", None))
        return opened

    def _open(self, place: RegistryCache | LocalCache) -> OpenedCache:
        source, has, asks = self._local(place) if isinstance(place, LocalCache) else self._named(place.reference)
        source = self._stack.enter_context(source)
        return OpenedCache(source, has, _read_contents(source), asks=asks)

    def _local(self, place: LocalCache) -> tuple[Source, Callable[[Descriptor], bool], int]:
        blobs = place.path / "blobs"
        source = _DigestOf(place.path, Digest(place.digest)) if place.digest else OciSource(place.path, place.tag)
        return source, lambda blob: (blobs / blob.digest.algorithm / blob.digest.encoded).exists(), 1

    def _named(self, reference: Reference) -> tuple[Source, Callable[[Descriptor], bool], int]:
        """An image of the store, if it has the name; else the registry."""
        if self._store.metadata.name(str(reference)) is not None:
            return StoreSource(self._store, str(reference)), lambda blob: self._store.content.has(blob.digest), 1
        source = RegistrySource(reference, self._registries())
        return source, lambda blob: source.has_blob(blob.digest), _ASKS


class _DigestOf(OciSource):
    """The manifest with a digest in a layout, whether or not the index names it."""

    def __init__(self, path: Path, digest: Digest) -> None:
        super().__init__(path, str(digest))
        self._file = path / "blobs" / digest.algorithm / digest.encoded
        self._digest = digest

    def root(self) -> Descriptor:
        try:
            size = self._file.stat().st_size
        except OSError:
            raise BlobNotFound(f"{self.name} is not in the layout") from None
        return Descriptor(media_types.OCI_MANIFEST, self._digest, size)


def _shown(place: RegistryCache | LocalCache) -> str:
    return place.reference.familiar if isinstance(place, RegistryCache) else str(place.path)


def _read_contents(source: Source) -> CacheContents:
    """What a cache, an image, or every image of an index says. Raises NotFound when none says anything."""
    root = source.root()
    document = source.manifest(root)
    manifests = [document] if isinstance(document, Manifest) else _children(source, document)
    found = [_of_manifest(source, manifest) for manifest in manifests]
    records = {key: record for contents in found for key, record in contents.records.items()}
    mounts = {name: mount for contents in found for name, mount in contents.mounts.items()}
    if not records and not mounts:
        raise NotFound("it carries no cache records")
    return CacheContents(records, mounts)


def _children(source: Source, index: Index) -> list[Manifest]:
    images = [child for child in index.manifests if child.platform is None or child.platform.os != "unknown"]
    found = [source.manifest(child) for child in images[:_MAX_IMAGES]]
    return [manifest for manifest in found if isinstance(manifest, Manifest)]


def _of_manifest(source: Source, manifest: Manifest) -> CacheContents:
    with source.open_blob(manifest.config) as blocks:
        raw = read_document(blocks, manifest.config)
    if manifest.config.media_type == CACHE_CONFIG:
        return decode_cache(raw, manifest.layers)
    if manifest.config.media_type not in media_types.CONFIGS:
        return CacheContents()
    return decode_inline(raw, ImageConfig.decode(raw).diff_ids, manifest.layers)


# Writing


def inline_members(exports: Iterable[CacheExport], build: SolvedBuild) -> dict[str, object] | None:
    """What an inline cache adds to the configuration of the built image."""
    if not any(isinstance(export.place, InlineCache) for export in exports):
        return None
    records = records_of(build.solver.solved(build.graph), build.stack, every_step=False)
    return encode_inline(records, build.stack)


@dataclass(frozen=True, slots=True)
class CacheExporter:
    """Writes the caches of a finished build. ``imported`` are the caches that it was built from."""

    session: Session
    builds: Sequence[SolvedBuild]
    imported: Sequence[OpenedCache]
    registries: Callable[[], Registries]
    here: Platform
    progress: Progress

    def write(self, exports: Iterable[CacheExport]) -> None:
        """Blobs that the destination has are not sent. Raises RegistryError, StorageError."""
        for export in exports:
            if isinstance(export.place, InlineCache):
                continue
            try:
                self._write(export, export.place)
            except TierceError as error:
                if not export.ignore_error:
                    raise
                self.progress(Warned("", f"cache was not written to {_shown(export.place)}: {error}", None))

    def _write(self, export: CacheExport, place: RegistryCache | LocalCache) -> None:
        records = [
            self._compressed(record, export, portable=build.solver.is_portable)
            for build in self.builds
            for record in records_of(build.solver.solved(build.graph), build.stack, every_step=export.every_step)
        ]
        mounts = self._mounts() if export.mounts else []
        config, layers = encode_cache(list({record.key: record for record in records}.values()), mounts)
        blob = self.session.put(config, CACHE_CONFIG)
        manifest = Manifest.build(blob, layers)
        with _CacheSource(self.session, manifest, self._fetch) as source, self._sink(place) as sink:
            copy(source, sink, CopyOptions(self.here))

    def _sink(self, place: RegistryCache | LocalCache) -> Sink:
        match place:
            case RegistryCache():
                return RegistrySink(place.reference, self.registries())
            case LocalCache():
                return OciSink(place.path, place.tag)
            case _:
                assert_never(place)

    def _compressed(self, record: CacheRecord, export: CacheExport, *, portable: bool) -> CacheRecord:
        if export.compression is None or record.blob is None or record.diff_id is None:
            return record
        same = media_types.layer_compression(record.blob.media_type) == export.compression
        if same and export.level is None:
            return record
        self._fetch(record.blob)
        made = recompressed(
            self.session, record.blob, record.diff_id, export.compression, export.level, portable=portable
        )
        return replace(record, blob=made)

    def _fetch(self, blob: Descriptor) -> None:
        """Have a blob in the store that a build from a cache elsewhere did not need."""
        if self.session.reuse(blob.digest):
            return
        for cache in self.imported:
            if cache.has(blob):
                cache.fetch(self.session, blob)
                return
        raise BlobNotFound(f"blob {blob.digest} of a cached step is gone: build again with --no-cache")

    def _mounts(self) -> list[MountRecord]:
        """The cache mounts that the builds name: as they are here, else as they were imported."""
        caches = CacheMounts(self.session.store.root)
        named = {
            mount_key(mount.id, mode=mount.mode, uid=mount.uid, gid=mount.gid): mount
            for build in self.builds
            for mount in _cache_mounts(build.graph)
        }
        known = {name: mount for cache in self.imported for name, mount in cache.contents.mounts.items()}
        here = {directory.key for directory in caches.directories(sizes=False)}
        found: list[MountRecord] = []
        for name, mount in sorted(named.items()):
            if name in here:
                found.append(self._pack(caches, name, mount))
            elif name in known:
                found.append(known[name])
        return found

    def _pack(self, caches: CacheMounts, name: str, mount: CacheMount) -> MountRecord:
        with (
            caches.acquire(mount.id, "locked", mode=mount.mode, uid=mount.uid, gid=mount.gid) as directory,
            self.session.writer() as writer,
        ):
            packed = pack_blob(directory, writer.write_hashed, "zstd", whiteouts=False)
            writer.commit_as(packed.digest)
        blob = Descriptor(media_types.OCI_LAYER_ZSTD, packed.digest, packed.size)
        return MountRecord(name, mount.id, blob, DiffID(str(packed.diff_id)))


def _cache_mounts(graph: Graph) -> Iterable[CacheMount]:
    for step in inputs_first(graph.target):
        if isinstance(step.operation, RunCommand):
            for mount in step.operation.mounts:
                if isinstance(mount.mount, CacheMount):
                    yield mount.mount


class _CacheSource(LocalSource):
    """A cache that is written: its documents are made, its blobs in the store, or fetched when they are wanted."""

    holds_indexes = False

    def __init__(self, session: Session, manifest: Manifest, fetch: Callable[[Descriptor], None]) -> None:
        self._session = session
        self._manifest = manifest
        self._fetch = fetch

    @property
    def name(self) -> str:
        return "the build cache"

    def root(self) -> Descriptor:
        return self._manifest.descriptor

    def manifest(self, _descriptor: Descriptor, /) -> Manifest | Index:
        return self._manifest

    def open_blob(self, descriptor: Descriptor, /) -> AbstractContextManager[Blocks]:
        self._fetch(descriptor)
        return open_file(self._session.content.path(descriptor.digest), descriptor)
