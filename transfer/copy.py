"""Copy an image from any source to any sink.

    root → (platform of an index) → for each image: config, layers in parallel, manifest → index → commit

Manifests go through as the bytes they are, so digests are preserved. One exception: a source
that has no manifest (``synthesized``) gets its layers compressed on the way to a sink that
prefers that, and its manifest is then made for the compressed layers.

Bytes stream from source to sink. The first failure stops the other threads at once; nothing
is visible at the destination before the last step, ``commit``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import field, replace
from typing import Final, TypeVar

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import BlobNotFound, Cancelled, InvalidManifest, ReferenceNotFound
from image.manifest import Index, Manifest
from image.platform import Platform, best_match
from image.value import dataclass
from store.compression import compressor
from transfer.ports import Block, Blocks, Sink, Source
from transfer.progress import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    ImageStarted,
    ManifestDone,
    Progress,
    one_at_a_time,
    silent,
)
from transfer.registry.retry import Retry
from transfer.transports.files import read_document

_T = TypeVar("_T")
_MAX_NESTING: Final = 4
_MAX_MANIFESTS: Final = 2000


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """``platform`` narrows an index to one image; ``default_platform`` does so for sinks that hold no index."""

    default_platform: Platform
    platform: Platform | None = None
    concurrency: int = 4
    retry: Retry = field(default_factory=lambda: Retry(attempts=3))


@dataclass(frozen=True, slots=True)
class Copied:
    """``descriptor`` is what the sink has now; ``source`` what the source's name stands for."""

    descriptor: Descriptor
    source: Descriptor


def copy(source: Source, sink: Sink, options: CopyOptions, progress: Progress = silent) -> Copied:
    """Copy what ``source`` names and make it visible in ``sink``. Both are entered.

    Raises what the source and the sink raise; Cancelled only when the whole copy was stopped.
    """
    return _Copy(source, sink, options, progress).run()


def choose_platform(index: Index, wanted: Platform, name: str) -> Descriptor:
    """The image of an index for a platform. Raises ReferenceNotFound that lists what there is."""
    position = best_match(wanted, [child.platform for child in index.manifests])
    if position is not None:
        return index.manifests[position]
    offered = [str(child.platform) for child in index.manifests if child.platform and child.platform.os != "unknown"]
    if not offered and len(index.manifests) == 1:
        return index.manifests[0]
    listed = ", ".join(dict.fromkeys(offered)) or "none"
    raise ReferenceNotFound(f"{name} has no image for {wanted}; available: {listed}")


class _Copy:
    """The state of one copy."""

    def __init__(self, source: Source, sink: Sink, options: CopyOptions, progress: Progress) -> None:
        self._source = source
        self._sink = sink
        self._options = options
        self._emit = one_at_a_time(progress)
        self._stopped = threading.Event()
        self._retry = replace(options.retry, sleep=self._sleep)
        self._placed: set[Digest] = set()
        self._manifests = 0

    def run(self) -> Copied:
        root = self._source.root()
        target, document = self._select(root)
        workers = max(1, min(self._options.concurrency, self._sink.concurrency))
        with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
            try:
                target, document, how = self._place(pool, target, document)
            except BaseException:
                self._stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._sink.commit(target, document)
        self._emit(ManifestDone(target, "skipped" if how else "copied"))
        return Copied(target, root)

    def _select(self, root: Descriptor) -> tuple[Descriptor, Manifest | Index]:
        """What to copy: all that the name stands for, or one platform of it."""
        target, document = root, self._source.manifest(root)
        wanted = self._options.platform
        if wanted is None and not self._sink.holds_indexes:
            wanted = self._options.default_platform
        for _ in range(_MAX_NESTING):
            if wanted is None or isinstance(document, Manifest):
                return target, document
            target = choose_platform(document, wanted, self._source.name)
            document = self._source.manifest(target)
        if isinstance(document, Index):
            raise InvalidManifest("manifests", f"indexes are nested deeper than {_MAX_NESTING}")
        return target, document

    # Images and indexes

    def _place(
        self, pool: ThreadPoolExecutor, target: Descriptor, document: Manifest | Index, depth: int = 0
    ) -> tuple[Descriptor, Manifest | Index, bool]:
        """Everything below a document; the document itself is left to the caller."""
        if not self._source.synthesized and self._sink.has_manifest(target):
            return target, document, True
        if isinstance(document, Index):
            self._place_children(pool, document, depth)
            return target, document, False
        if self._source.synthesized and self._sink.prefers_compressed:
            document = self._compressed(pool, document)
            target = document.descriptor
        self._place_image(pool, target, document)
        return target, document, False

    def _place_children(self, pool: ThreadPoolExecutor, index: Index, depth: int) -> None:
        if depth >= _MAX_NESTING:
            raise InvalidManifest("manifests", f"indexes are nested deeper than {_MAX_NESTING}")
        self._manifests += len(index.manifests)
        if self._manifests > _MAX_MANIFESTS:
            raise InvalidManifest("manifests", f"more than {_MAX_MANIFESTS} in all")
        children = list(dict.fromkeys(index.manifests))
        documents = [pool.submit(self._child, child) for child in children]
        self._wait(documents)
        for child, fetched in zip(children, documents, strict=True):
            document = fetched.result()
            _, _, there = self._place(pool, child, document, depth + 1)
            if not there:
                self._sink.put_manifest(child, document)
            self._emit(ManifestDone(child, "skipped" if there else "copied"))

    def _child(self, child: Descriptor) -> Manifest | Index:
        try:
            return self._source.manifest(child)
        except BlobNotFound as error:
            what = f" for {child.platform}" if child.platform else ""
            raise BlobNotFound(
                f"{self._source.name} names an image{what} that it does not hold: choose one with --platform"
            ) from error

    def _place_image(self, pool: ThreadPoolExecutor, target: Descriptor, manifest: Manifest) -> None:
        """A config, then the layers at once: sinks know from the config what the layers are."""
        layers = [layer for layer in manifest.layers if not media_types.is_foreign(layer.media_type)]
        blobs = list({blob.digest: blob for blob in (manifest.config, *layers)}.values())
        self._sink.begin(manifest)
        self._emit(ImageStarted(target, target.platform, tuple(blobs)))
        todo = [blob for blob in blobs if blob.digest not in self._placed]
        if todo and todo[0].digest == manifest.config.digest:
            self._wait([pool.submit(self._transfer, todo.pop(0))])
        self._wait([pool.submit(self._transfer, blob) for blob in todo])

    # Blobs

    def _transfer(self, blob: Descriptor) -> None:
        self._check()
        how = self._sink.adopt(blob, self._source.repository)
        if how is None:
            self._emit(BlobStarted(blob, blob.size))
            self._retry.call(lambda: self._stream(blob))
        self._placed.add(blob.digest)
        self._emit(BlobDone(blob, how or "copied"))

    def _stream(self, blob: Descriptor) -> None:
        with self._source.open_blob(blob) as blocks:
            self._sink.put_blob(blob, self._counted(blob, blocks))

    def _counted(self, blob: Descriptor, blocks: Blocks) -> Iterator[Block]:
        """The same blocks, with progress told and an ear for a stop."""
        done = 0
        for block in blocks:
            self._check()
            yield block
            done += len(block)
            self._emit(BlobProgress(blob, done))

    # Compression of what a source holds uncompressed

    def _compressed(self, pool: ThreadPoolExecutor, manifest: Manifest) -> Manifest:
        """The same image with gzip layers, which are in the sink then; the config stays as it is."""
        with self._source.open_blob(manifest.config) as blocks:
            diff_ids = ImageConfig.decode(read_document(blocks, manifest.config)).diff_ids
        found: dict[Digest, Future[Descriptor]] = {}
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            if layer.media_type == media_types.OCI_LAYER and layer.digest not in found:
                found[layer.digest] = pool.submit(self._compress, layer, diff_id)
        self._wait(list(found.values()))
        layers = [found[layer.digest].result() if layer.digest in found else layer for layer in manifest.layers]
        self._placed.update(future.result().digest for future in found.values())
        return Manifest.build(manifest.config, layers, annotations=manifest.annotations)

    def _compress(self, layer: Descriptor, diff_id: DiffID) -> Descriptor:
        self._check()
        known = self._sink.find_layer(diff_id)
        if known is not None:
            self._emit(BlobDone(layer, "skipped"))
            return known
        self._emit(BlobStarted(layer, layer.size))
        packed = self._retry.call(lambda: self._stream_compressed(layer))
        self._emit(BlobDone(layer, "copied"))
        return packed

    def _stream_compressed(self, layer: Descriptor) -> Descriptor:
        with self._source.open_blob(layer) as blocks:
            return self._sink.put_new_blob(media_types.OCI_LAYER_GZIP, _gzip(self._counted(layer, blocks)))

    # Threads

    def _wait(self, futures: Sequence[Future[_T]]) -> None:
        """All of them, or the first failure that is more than an echo of another's."""
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failures = [error for future in done if (error := future.exception()) is not None]
        for error in sorted(failures, key=lambda error: isinstance(error, Cancelled)):
            raise error

    def _stop(self) -> None:
        self._stopped.set()
        self._source.abort()
        self._sink.abort()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Cancelled("the copy was stopped")

    def _sleep(self, seconds: float) -> None:
        self._stopped.wait(seconds)
        self._check()


def _gzip(blocks: Blocks) -> Iterator[bytes]:
    codec = compressor("gzip")
    for block in blocks:
        if packed := codec.compress(bytes(block)):
            yield packed
    yield codec.flush()
