"""What the store's space is used for: images, containers, volumes, the build cache, and what nothing needs.

Blobs and unpacked layers are counted once, for the first of these that needs them; an
image comes before the cache. So the parts add up to the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from image.errors import TierceError
from image.value import dataclass
from runner.containers.records import Record as Container
from runner.containers.records import Records as Containers
from runner.volumes.volumes import Volumes
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
class ContainerUsage:
    """Bytes of content that a container has written outside volumes."""

    record: Container
    size: int


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """Bytes of content of a volume; ``links`` are the containers that name it."""

    name: str
    size: int
    links: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes by what needs them. ``dangling`` is the part of ``images`` that no named image shares.

    ``images_free`` is the part that no image shares of which a container was made.
    """

    images: tuple[ImageUsage, ...]
    images_size: int
    images_free: int
    dangling: int
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...]
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
    containers = Containers(store).all()
    made_of = {container.image for container in containers}
    of_used = set().union(*(found for digest, found in parts.items() if str(digest) in made_of))
    cache = tuple(store.metadata.cache())
    of_cache = (_cache_parts(store, cache) & sizes.keys()) - of_images
    return Usage(
        tuple(
            ImageUsage(record, total(found), total(part for part in found if counts[part] == 1))
            for record in records
            for found in [parts[record.target.digest]]
        ),
        total(of_images),
        total(of_images - of_used),
        total(of_images - of_named),
        tuple(ContainerUsage(container, container_size(store, container)) for container in containers),
        tuple(_volumes(store, containers)),
        cache,
        total(of_cache),
        total(sizes.keys() - of_images - of_cache),
    )


def _volumes(store: Store, containers: Iterable[Container]) -> Iterator[VolumeUsage]:
    links: dict[str, int] = {}
    for container in containers:
        for name in {mount.source for mount in container.made.options.mounts if mount.kind == "volume"}:
            links[name] = links.get(name, 0) + 1
    for volume in Volumes(store.root).all():
        yield VolumeUsage(volume.name, content_size(volume.path / "_data"), links.get(volume.name, 0))


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
