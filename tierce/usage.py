"""What the store's space is used for: images, the build cache, and what nothing needs.

Blobs and unpacked layers are counted once, for the first of these that needs them; an
image comes before the cache. So the parts add up to the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from image.errors import TierceError
from image.value import dataclass
from runner.containers.records import Record as Container
from store.disk_usage import content_size
from store.metadata import CacheRecord, ImageRecord
from store.store import Store


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Bytes of one image: blobs and unpacked layers; ``unique`` are those no other image has."""

    record: ImageRecord
    size: int
    unique: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes by what needs them. ``dangling`` is the part of ``images`` that no named image shares."""

    images: tuple[ImageUsage, ...]
    images_size: int
    dangling: int
    cache: tuple[CacheRecord, ...]
    cache_size: int
    unused: int


def measure(store: Store) -> Usage:
    """Count everything. Reads each image's documents."""
    sizes = _sizes(store)
    records = store.metadata.images()
    parts = {record.target.digest: _parts(store, record) & sizes.keys() for record in records}
    counts: dict[str, int] = {}
    for part in (part for found in parts.values() for part in found):
        counts[part] = counts.get(part, 0) + 1

    def total(keys: Iterable[str]) -> int:
        return sum(sizes[key] for key in keys)

    of_images = set().union(*parts.values())
    of_named = set().union(*(parts[record.target.digest] for record in records if record.names))
    cache = tuple(store.metadata.cache())
    of_cache = (_cache_parts(store, cache) & sizes.keys()) - of_images
    return Usage(
        tuple(
            ImageUsage(record, total(found), total(part for part in found if counts[part] == 1))
            for record in records
            for found in [parts[record.target.digest]]
        ),
        total(of_images),
        total(of_images - of_named),
        cache,
        total(of_cache),
        total(sizes.keys() - of_images - of_cache),
    )


def _sizes(store: Store) -> dict[str, int]:
    """Bytes on disk by blob digest, and by chain id with a ``layer:`` before it."""
    sizes = {f"layer:{layer.chain_id}": layer.size for layer in store.metadata.layers()}
    for digest in store.content.digests():
        sizes[str(digest)] = store.content.size(digest)
    return sizes


def _parts(store: Store, record: ImageRecord) -> set[str]:
    try:
        facts = store.facts(record.target)
    except TierceError:  # a damaged image still takes the space of its manifest; system check tells
        return {str(record.target.digest)}
    return {str(blob.digest) for blob in facts.blobs} | {f"layer:{layer.chain_id}" for layer in facts.layers}


def _cache_parts(store: Store, cache: Iterable[CacheRecord]) -> set[str]:
    parts: set[str] = set()
    for record in cache:
        if record.blob is not None:
            parts.add(str(record.blob.digest))
        if record.chain_id is not None:
            parts |= {f"layer:{layer.chain_id}" for layer in store.metadata.layer_stack(record.chain_id)}
    return parts


def container_size(store: Store, record: Container) -> int:
    """Bytes of content of the files that a container has added and changed, outside volumes."""
    return content_size(store.layers.base / record.made.directory / "diff")


def layers_size(store: Store, directories: Iterable[str]) -> int:
    """Bytes of unpacked layers."""
    sizes = {layer.directory: layer.size for layer in store.metadata.layers()}
    return sum(sizes.get(directory, 0) for directory in directories)
