"""An image's files as one tree, from wherever it is: as a tar, or as the one layer of a smaller image.

Layers stream from the top down; none is kept (``store.merge``). The one layer of an image that becomes
flat is kept in an unnamed file on disk until it is copied, as its digest is known at its end.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.value import dataclass
from store.merge import merged
from transfer.changed import Part
from transfer.layer_streams import inflated, packed
from transfer.ports import Block, Blocks, Source
from transfer.transports.files import open_part
from transfer.transports.tar_output import Spool


def files_of(source: Source, part: Part) -> Iterator[Block]:
    """The merged tree of an entered source's image as an uncompressed tar.

    Each layer is verified at its end: what came before an error must not be used. Raises
    InvalidArchive, VerificationError, BlobNotFound, RegistryError.
    """
    diff_ids = ImageConfig.decode(part.config).diff_ids
    layers = zip(part.manifest.layers, diff_ids, strict=True)
    return merged([partial(_opened, source, layer, diff_id) for layer, diff_id in layers])


@contextmanager
def _opened(source: Source, layer: Descriptor, diff_id: DiffID) -> Iterator[Iterator[bytes]]:
    with source.open_blob(layer) as blocks, closing(_inflated(blocks, diff_id)) as pieces:
        yield pieces


def _inflated(blocks: Blocks, diff_id: DiffID) -> Generator[bytes, None, None]:
    return (piece for piece in inflated(blocks, diff_id) if piece)


@dataclass(frozen=True, slots=True)
class FlatLayer:
    """A gzip layer in an open file."""

    fd: int
    descriptor: Descriptor
    diff_id: DiffID

    def open(self) -> AbstractContextManager[Blocks]:
        return open_part(self.fd, 0, self.descriptor)


@contextmanager
def flat_layer(source: Source, part: Part) -> Iterator[FlatLayer]:
    """All files of an image as one layer, with the type that the image's manifest wants. Raises as ``files_of``."""
    content, blob = hashlib.sha256(), hashlib.sha256()

    def hashed() -> Iterator[Block]:
        for piece in files_of(source, part):
            content.update(piece)
            yield piece

    with tempfile.TemporaryFile(buffering=0) as file:
        spool = Spool(file.fileno())
        for block in packed(hashed(), "gzip"):
            blob.update(block)
            spool.write(block)
        media_type = media_types.DOCKER_LAYER_GZIP if part.is_docker_s else media_types.oci_layer("gzip")
        described = Descriptor(media_type, Digest.from_hash(blob), spool.size)
        yield FlatLayer(file.fileno(), described, DiffID.from_hash(content))


def flattened(part: Part, layer: FlatLayer) -> Part:
    """The image with ``layer`` for all its layers; what its history told of them is gone with them."""
    document = json.loads(part.config)
    document["rootfs"]["diff_ids"] = [str(layer.diff_id)]
    entry = {"created_by": f"tierce flatten {part.manifest.digest}"}
    document["history"] = [{"created": document["created"], **entry} if document.get("created") else entry]
    return part.rebuilt(document, [layer.descriptor])
