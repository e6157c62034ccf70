"""An image as a graph of documents: an index leads to manifests, or to indexes again.

What a registry answers is hostile, so a graph has bounds: documents below each other, and in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from image import media_types
from image.descriptor import Descriptor
from image.errors import BlobNotFound, InvalidManifest, ReferenceNotFound
from image.manifest import Index, Manifest
from image.platform import Platform, best_match
from transfer.ports import Source

MAX_NESTING: Final = 4
"""Indexes that may lie inside each other."""
MAX_MANIFESTS: Final = 2000

Document = Manifest | Index
Fetch = Callable[[Callable[[Descriptor], Document], Iterable[Descriptor]], Iterable[Document]]
"""How several children are fetched: ``map``, or the ``map`` of a pool of threads."""

ATTESTED: Final = "vnd.docker.reference.digest"
"""The annotation by which an attestation in an index says which image it is about."""


def fetch_child(source: Source, child: Descriptor) -> Document:
    """A document that an index names. Raises BlobNotFound that says what to do about a sparse index."""
    try:
        return source.manifest(child)
    except BlobNotFound as error:
        what = f" for {child.platform}" if child.platform else ""
        raise BlobNotFound(
            f"{source.name} names an image{what} that it does not hold: choose one with --platform"
        ) from error


def walk(
    source: Source, target: Descriptor, document: Document, fetch: Fetch = map
) -> Iterator[tuple[Descriptor, Document]]:
    """The document and all below it, each once, an index before what it names.

    Raises what ``Source.manifest`` raises; InvalidManifest for a graph that is too deep or too large.
    """
    seen = {target.digest}
    level = [(target, document)]
    for _ in range(MAX_NESTING + 1):
        yield from level
        below = []
        for _, index in level:
            if isinstance(index, Index):
                below += [child for child in dict.fromkeys(index.manifests) if child.digest not in seen]
                seen.update(child.digest for child in below)
        if len(seen) > MAX_MANIFESTS:
            raise InvalidManifest("manifests", f"more than {MAX_MANIFESTS} in all")
        if not below:
            return
        level = list(zip(below, fetch(lambda child: fetch_child(source, child), below), strict=True))
    raise InvalidManifest("manifests", f"indexes are nested deeper than {MAX_NESTING}")


def named(source: Source, target: Descriptor, document: Document) -> list[Descriptor]:
    """The document and all below it, without fetching what is no index."""
    found = {target.digest: target}
    level = [document] if isinstance(document, Index) else []
    for _ in range(MAX_NESTING + 1):
        below = [child for index in level for child in index.manifests if child.digest not in found]
        found.update((child.digest, child) for child in below)
        if len(found) > MAX_MANIFESTS:
            raise InvalidManifest("manifests", f"more than {MAX_MANIFESTS} in all")
        nested = [fetch_child(source, child) for child in below if child.media_type in media_types.INDEXES]
        level = [index for index in nested if isinstance(index, Index)]
        if not level:
            return list(found.values())
    raise InvalidManifest("manifests", f"indexes are nested deeper than {MAX_NESTING}")


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


def sparse_index(index: Index, wanted: Iterable[Platform], name: str) -> Index:
    """The same index with these platforms alone, and the attestations about them.

    The order stays, and so do the bytes when nothing is left out. Raises ReferenceNotFound.
    """
    kept = {choose_platform(index, platform, name).digest for platform in wanted}
    children = [
        child
        for child in index.manifests
        if child.digest in kept or child.annotations.get(ATTESTED) in {str(digest) for digest in kept}
    ]
    if len(children) == len(index.manifests):
        return index
    return Index.build(
        children,
        media_type=index.media_type,
        annotations=index.annotations,
        subject=index.subject,
        artifact_type=index.artifact_type,
    )
