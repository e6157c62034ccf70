"""From what a user typed to an image of the store, by docker's rules; and what is said of one.

A word is a name (``busybox``, ``busybox:1.36``, ``busybox@sha256:...``) or an id: the
digest of the config or of the manifest, or the first digits of one. A name wins over an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import BlobNotFound, Conflict, ImageInUse, InvalidReference, ReferenceNotFound
from image.manifest import Manifest, decode_manifest
from image.platform import Platform, best_match
from image.reference import Reference
from image.value import dataclass, replace
from store.content import ContentStore
from store.metadata import ImageRecord, Metadata
from store.store import Store
from store.uses import unpacked_sizes
from tierce.host_platform import host_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Found:
    """An image, and the full name it was found by; "" when it was found by id."""

    record: ImageRecord
    name: str = ""


def find(metadata: Metadata, word: str) -> Found:
    """The image that ``word`` means. Raises ReferenceNotFound, or Conflict when an id is ambiguous."""
    records = list_images(metadata)
    found = _by_name(metadata, records, word) or _by_id(records, word)
    if found is None:
        raise ReferenceNotFound(f"no such image: {word[:300]}")
    return found


def _by_name(metadata: Metadata, records: Iterable[ImageRecord], word: str) -> Found | None:
    try:
        reference = Reference.parse(word).with_default_tag()
    except InvalidReference:
        return None
    name = metadata.name(str(reference))
    if name is None and reference.digest is not None:
        return _by_digest(metadata, records, reference, reference.digest)
    if name is None:
        return None
    return next((Found(record, name.name) for record in records if record.target.digest == name.target.digest), None)


def _by_digest(
    metadata: Metadata, records: Iterable[ImageRecord], reference: Reference, digest: Digest
) -> Found | None:
    """``repository@digest``: the image with that digest, if the repository has any name of it."""
    repositories = {
        known.target.digest
        for known in metadata.names()
        if Reference.parse(known.name).repository == reference.repository
        and str(digest) in {known.source, str(known.target.digest)}
    }
    return next((Found(record) for record in records if record.target.digest in repositories), None)


def _by_id(records: Iterable[ImageRecord], word: str) -> Found | None:
    digits = word.removeprefix("sha256:")
    if not digits or len(digits) > 64 or not _HEX.issuperset(digits):
        return None
    prefix = f"sha256:{digits}"
    hits = [r for r in records if r.config.startswith(prefix) or str(r.target.digest).startswith(prefix)]
    if len({hit.config for hit in hits}) > 1:
        listed = ", ".join(sorted({short_id(hit.config) for hit in hits})[:5])
        raise Conflict(f"image id {word} is ambiguous: it may be {listed}")
    return Found(hits[0]) if hits else None


def image_id(store: Store, manifest: str) -> str:
    """The id that is shown of the image with this manifest; the manifest's digest for an image that is gone."""
    known = {str(record.target.digest): record.config for record in store.metadata.images()}
    return known.get(manifest, manifest)


def short_id(digest: str) -> str:
    """The first 12 hex digits, as docker prints ids."""
    return digest.partition(":")[2][:12]


@dataclass(frozen=True, slots=True)
class RunnableImage:
    """One platform's image: its manifest (``target`` describes it) and configuration."""

    target: Descriptor
    manifest: Manifest
    config: ImageConfig


def runnable(content: ContentStore, target: Descriptor, wanted: Platform | None, *, name: str) -> RunnableImage:
    """The image of ``target`` for a platform; without a wish, this machine's or else any that is there.

    Raises ReferenceNotFound when no such image is in the store; InvalidManifest, InvalidConfig.
    """
    document = decode_manifest(content.read(target), target.media_type)
    if isinstance(document, Manifest):
        config = ImageConfig.decode(content.read(document.config))
        if wanted is not None and best_match(wanted, [config.platform]) is None:
            raise ReferenceNotFound(f"image {name} is for {config.platform}, not {wanted}: pull it with --platform")
        return RunnableImage(target, document, config)
    images = [child for child in document.manifests if content.has(child.digest) and _is_image(child)]
    position = best_match(wanted or host_platform(), [child.platform for child in images])
    if position is None and wanted is None and images:
        position = 0
    if position is None:
        there = ", ".join(str(child.platform) for child in images) or "none"
        raise ReferenceNotFound(
            f"image {name} has no platform {wanted or host_platform()} in the store (there is: {there})"
        )
    return runnable(content, images[position], None, name=name)


def _is_image(child: Descriptor) -> bool:
    """Not an attestation, which buildx gives the platform unknown/unknown."""
    return child.platform is None or child.platform.os != "unknown"


@dataclass(frozen=True, slots=True)
class Removed:
    """What ``remove`` did, in docker's order."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]


def remove(store: Store, word: str, *, force: bool = False) -> Removed:
    """Take a name away, or an image with all its names when it is named by id or by its last name.

    ``Store.collect`` frees the space afterwards. Raises ReferenceNotFound; ImageInUse when
    an id has names in several repositories and ``force`` is not set.
    """
    with store.metadata.transaction():
        found = find(store.metadata, word)
        record = found.record
        if found.name and len(record.names) > 1:
            store.remove_name(found.name)
            return Removed((familiar(found.name),), ())
        repositories = {Reference.parse(name).repository for name in record.names}
        if not found.name and len(repositories) > 1 and not force:
            raise ImageInUse(f"image {word} has names in several repositories: remove the names, or use --force")
        same = [other for other in store.metadata.images() if not found.name and other.config == record.config]
        names = [name for other in same or [record] for name in other.names]
        for other in same or [record]:
            _check_unused(store, word, other)
            store.remove_image(other.target.digest)
        return Removed(tuple(map(familiar, names)), (record.config,))


def _check_unused(store: Store, word: str, record: ImageRecord) -> None:
    """A container needs its image's layers, so the image stays, with ``--force`` too. Raises ImageInUse."""
    from store.container_rows import ContainerRows

    users = ContainerRows(store.metadata).using(str(record.target.digest))
    if users:
        raise ImageInUse(
            f"unable to remove image {word}: container {users[0].id[:12]} ({users[0].name}) is using it: remove it first"
        )


def familiar(name: str) -> str:
    """A full name as users type it."""
    return Reference.parse(name).familiar


def add_name(store: Store, word: str, name: str) -> None:
    """``tag``: one more name. Raises ReferenceNotFound, InvalidReference."""
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise InvalidReference(f"invalid name {name!r}: a tag can't be given together with a digest")
    with store.session() as session:
        target = find(store.metadata, word).record.target
        session.reuse(target.digest)
        store.add_image(target, [reference.with_default_tag()])


def repository_digests(metadata: Metadata) -> Mapping[str, str]:
    """Full name to the digest it has at its registry, or has had to get."""
    return {record.name: record.source or str(record.target.digest) for record in metadata.names()}


def list_images(metadata: Metadata) -> list[ImageRecord]:
    """Every image, newest first, with the size that docker shows: of its files where they are
    unpacked, of its compressed blobs where not."""
    unpacked = unpacked_sizes(metadata)
    return [replace(record, size=unpacked.get(str(record.target.digest), record.size)) for record in metadata.images()]


def labels(content: ContentStore, record: ImageRecord) -> Mapping[str, str]:
    """The image's labels; none for what is no image."""
    try:
        return runnable(content, record.target, None, name=record.config).config.config.labels
    except (ReferenceNotFound, BlobNotFound):
        return {}
