"""Prove that a copy is whole: read its documents again, and find every blob that they name.

A registry is asked for each blob's presence and size; files are read through and hashed.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import DigestMismatch
from image.manifest import Manifest
from image.value import dataclass
from transfer.graph import walk
from transfer.ports import Source

_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found: documents, and blobs of ``size`` bytes together, each counted once."""

    manifests: int = 0
    blobs: int = 0
    size: int = 0

    def __add__(self, other: Verified) -> Verified:
        return Verified(self.manifests + other.manifests, self.blobs + other.blobs, self.size + other.size)


def verify(source: Source, expected: Digest | None) -> Verified:
    """Re-read what an entered source names, and all below it.

    ``expected`` is what the name must stand for; None where the place keeps no manifests.
    Raises DigestMismatch, SizeMismatch, ReferenceNotFound, BlobNotFound, RegistryError.
    """
    root = source.root()
    if expected is not None and root.digest != expected:
        raise DigestMismatch(expected, root.digest, what=f"verify {source.name}: the image there")
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="verify") as pool:
        try:
            documents = list(walk(source, root, source.manifest(root), pool.map))
            blobs = _blobs(document for _, document in documents if isinstance(document, Manifest))
            list(pool.map(source.check_blob, blobs))
        except BaseException:
            source.abort()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Verified(len(documents), len(blobs), sum(blob.size for blob in blobs))


def _blobs(manifests: Iterable[Manifest]) -> list[Descriptor]:
    """Every blob that a copy brings along; layers kept elsewhere are not."""
    found = {
        blob.digest: blob
        for manifest in manifests
        for blob in manifest.children
        if not media_types.is_foreign(blob.media_type)
    }
    return list(found.values())
