"""Copy an image from any source to any sink.

    root → (platforms of an index) → what will change, decided → for each image: config, layers in
    parallel, manifest → index → commit

Manifests go through as the bytes they are, so digests are preserved, with two exceptions: a
source that has no manifest (``synthesized``) gets its layers compressed on the way to a sink
that prefers that; and a ``Conversion`` that was asked for. Whether a copy may change what it
must is known before a byte is sent.

Bytes stream from source to sink, through a codec where they are packed anew. The first failure
stops the other threads at once; nothing is visible at the destination before the last step,
``commit``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final, TypeVar

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import Cancelled, InvalidInput, InvalidManifest
from image.manifest import Index, Manifest
from image.platform import Platform
from image.value import dataclass, field, replace
from transfer.conversion import Conversion, packed_layer
from transfer.graph import MAX_MANIFESTS, MAX_NESTING, choose_platform, fetch_child, sparse_index, walk
from transfer.ports import Block, Blocks, Sink, Source
from transfer.progress import (
    BlobDone,
    BlobStarted,
    ImageStarted,
    ManifestDone,
    Progress,
    counted,
    one_at_a_time,
    silent,
)
from transfer.registry.retry import Retry
from transfer.transports.files import read_document

if TYPE_CHECKING:
    from image.media_types import Compression

_T = TypeVar("_T")
_DEFAULT_COMPRESSION: Final = "gzip"


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """``platform`` narrows an index to one image; ``default_platform`` does so for sinks that hold no index.

    ``platforms`` narrows it to an index of these. ``immutable`` says why no digest may change,
    in a user's words ("--preserve-digests forbids that"), or "" when one may.
    """

    default_platform: Platform
    platform: Platform | None = None
    platforms: tuple[Platform, ...] = ()
    conversion: Conversion = Conversion()
    immutable: str = ""
    concurrency: int = 4
    retry: Retry = field(default_factory=lambda: Retry(attempts=3))


@dataclass(frozen=True, slots=True)
class Copied:
    """``descriptor`` is what the sink has now; ``source`` what the source's name stands for.

    ``chosen`` is what was to be copied, as it is at the source: the name's whole, or one platform of it.
    """

    descriptor: Descriptor
    source: Descriptor
    chosen: Descriptor
    changed: bool = False
    """Whether the copy has another digest than what was chosen. A manifest that was made up has none to lose."""


def copy(source: Source, sink: Sink, options: CopyOptions, progress: Progress = silent) -> Copied:
    """Copy what ``source`` names and make it visible in ``sink``. Both are entered.

    Raises what the source and the sink raise; Cancelled only when the whole copy was stopped.
    """
    return _Copy(source, sink, options, progress).run()


def select(source: Source, sink: Sink, options: CopyOptions) -> tuple[Descriptor, Descriptor, Manifest | Index]:
    """What the source's name stands for, and what is to be copied: all of it, one platform, or an index of some.

    Raises ReferenceNotFound, InvalidManifest; InvalidInput for an index where none can be held.
    """
    root = target = source.root()
    document = source.manifest(root)
    if options.platforms and isinstance(document, Index):
        if not sink.holds_indexes:
            raise InvalidInput(f"{sink.name} holds one platform only: name one")
        document = sparse_index(document, options.platforms, source.name)
        return root, (root if document.digest == root.digest else document.descriptor), document
    wanted = options.platform
    if wanted is None and not sink.holds_indexes:
        wanted = options.default_platform
    for _ in range(MAX_NESTING):
        if wanted is None or isinstance(document, Manifest):
            return root, target, document
        target = choose_platform(document, wanted, source.name)
        document = source.manifest(target)
    if isinstance(document, Index):
        raise InvalidManifest("manifests", f"indexes are nested deeper than {MAX_NESTING}")
    return root, target, document


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
        self._changing: set[Digest] = set()
        self._manifests = 0
        self._conversion = options.conversion

    def run(self) -> Copied:
        root, target, document = select(self._source, self._sink, self._options)
        chosen = root if self._options.platforms else target
        workers = max(1, min(self._options.concurrency, self._sink.concurrency))
        with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
            try:
                self._decide(pool, root, target, document)
                target, document, there = self._place(pool, target, document)
            except BaseException:
                self._stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._sink.commit(target, document)
        self._emit(ManifestDone(target, "skipped" if there else "copied"))
        changed = target.digest != chosen.digest and not self._source.synthesized
        return Copied(target, root, chosen, changed)

    # What to copy, and what will become of it

    def _decide(
        self, pool: ThreadPoolExecutor, root: Descriptor, target: Descriptor, document: Manifest | Index
    ) -> None:
        """Find out which documents change. Raises InvalidInput when one can't, or must not."""
        required = self._sink.required_digest
        immutable = self._options.immutable or (f"the digest of {self._sink.name} forbids that" if required else "")
        if not self._sink.keeps_manifests and (immutable or self._conversion):
            what = "which digests depend on" if immutable else "which a conversion needs"
            raise InvalidInput(f"copy {self._source.name}: {self._sink.name} keeps no manifest, {what}")
        if (
            self._source.synthesized
            and self._sink.prefers_compressed
            and not (immutable or self._conversion.compression)
        ):
            self._conversion = replace(self._conversion, compression=_DEFAULT_COMPRESSION, plain_only=True)
        if self._conversion:
            self._find_changes(pool, target, document)
        narrowed = bool(self._options.platforms) and target.digest != root.digest
        if immutable and (narrowed or target.digest in self._changing):
            raise InvalidInput(f"copy {self._source.name}: its digest would change: {immutable}")
        if required and target.digest != required:
            raise InvalidInput(f"copy {self._source.name}: it is {target.digest}, and {self._sink.name} names another")

    def _find_changes(self, pool: ThreadPoolExecutor, target: Descriptor, document: Manifest | Index) -> None:
        everything = list(walk(self._source, target, document, pool.map))
        for descriptor, found in reversed(everything):  # children first
            below = found.manifests if isinstance(found, Index) else ()
            if self._conversion.changes(found) or any(child.digest in self._changing for child in below):
                self._changing.add(descriptor.digest)

    # Images and indexes

    def _place(
        self, pool: ThreadPoolExecutor, target: Descriptor, document: Manifest | Index, depth: int = 0
    ) -> tuple[Descriptor, Manifest | Index, bool]:
        """Everything below a document; the document itself, as it is now, is left to the caller."""
        changes = target.digest in self._changing
        if not changes and not self._source.synthesized and self._sink.has_manifest(target):
            return target, document, True
        if isinstance(document, Index):
            placed = self._place_children(pool, document, depth)
            if changes:
                document = self._conversion.index(document, placed)
                target = document.descriptor
            return target, document, False
        if changes:
            document = self._conversion.manifest(document, self._packed_layers(pool, document))
            target = replace(document.descriptor, platform=target.platform)
        self._place_image(pool, target, document)
        return target, document, False

    def _place_children(self, pool: ThreadPoolExecutor, index: Index, depth: int) -> dict[Digest, Descriptor]:
        """What each child is now."""
        if depth >= MAX_NESTING:
            raise InvalidManifest("manifests", f"indexes are nested deeper than {MAX_NESTING}")
        self._manifests += len(index.manifests)
        if self._manifests > MAX_MANIFESTS:
            raise InvalidManifest("manifests", f"more than {MAX_MANIFESTS} in all")
        children = list(dict.fromkeys(index.manifests))
        documents = [pool.submit(fetch_child, self._source, child) for child in children]
        self._wait(documents)
        placed = {}
        for child, fetched in zip(children, documents, strict=True):
            target, document, there = self._place(pool, child, fetched.result(), depth + 1)
            if not there:
                self._sink.put_manifest(target, document)
            self._emit(ManifestDone(target, "skipped" if there else "copied"))
            placed[child.digest] = target
        return placed

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
        origin = self._source.repository if how == "mounted" else None
        self._emit(BlobDone(blob, how or "copied", origin.path if origin else ""))

    def _stream(self, blob: Descriptor) -> None:
        with self._source.open_blob(blob) as blocks:
            self._sink.put_blob(blob, self._counted(blob, blocks))

    def _counted(self, blob: Descriptor, blocks: Blocks) -> Iterator[Block]:
        """The same blocks, with progress told and an ear for a stop."""
        for block in counted(blob, blocks, self._emit):
            self._check()
            yield block

    # Layers in another compression

    def _packed_layers(self, pool: ThreadPoolExecutor, manifest: Manifest) -> dict[Digest, Descriptor]:
        """The layers that get another compression, as they are in the sink then."""
        todo = list({layer.digest: layer for layer in self._conversion.to_pack(manifest)}.values())
        if not todo:
            return {}
        diff_ids = self._diff_ids(manifest)
        found = {layer.digest: pool.submit(self._pack, layer, diff_ids[layer.digest]) for layer in todo}
        self._wait(list(found.values()))
        packed = {layer.digest: packed_layer(layer, found[layer.digest].result()) for layer in todo}
        self._placed.update(layer.digest for layer in packed.values())
        return packed

    def _diff_ids(self, manifest: Manifest) -> dict[Digest, DiffID]:
        with self._source.open_blob(manifest.config) as blocks:
            diff_ids = ImageConfig.decode(read_document(blocks, manifest.config)).diff_ids
        if len(diff_ids) != len(manifest.layers):
            problem = f"{len(manifest.layers)} layers, but the config has {len(diff_ids)} diff_ids"
            raise InvalidManifest("layers", problem)
        return {layer.digest: diff_id for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)}

    def _pack(self, layer: Descriptor, diff_id: DiffID) -> Descriptor:
        self._check()
        compression = self._conversion.compression or _DEFAULT_COMPRESSION
        known = self._sink.find_layer(diff_id)
        if known is not None and self._serves(known, compression):
            self._emit(BlobDone(layer, "skipped"))
            return known
        self._emit(BlobStarted(layer, layer.size))
        packed = self._retry.call(lambda: self._stream_packed(layer, diff_id, compression))
        self._emit(BlobDone(layer, "copied"))
        return packed

    def _serves(self, known: Descriptor, compression: Compression) -> bool:
        """Whether a blob that is there does as well: any compression, unless one was asked for."""
        asked = self._options.conversion.compression
        return asked is None or media_types.layer_compression(known.media_type) == compression

    def _stream_packed(self, layer: Descriptor, diff_id: DiffID, compression: Compression) -> Descriptor:
        from transfer.layer_streams import inflated, packed

        with self._source.open_blob(layer) as blocks:
            content: Iterator[Block] = self._counted(layer, blocks)
            if str(layer.digest) != str(diff_id):
                content = inflated(content, diff_id)
            made = packed(content, compression, self._conversion.level)
            return self._sink.put_new_blob(media_types.oci_layer(compression), made)

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
