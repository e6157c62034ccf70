"""A layer's blob in another compression, streamed, and remembered so that it is done once."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TYPE_CHECKING, Final

from image import media_types
from image.descriptor import Descriptor
from image.digest import DiffID
from image.errors import DigestMismatch
from store.compression import Compressor, compressor, decompressor
from store.metadata import CacheRecord

if TYPE_CHECKING:
    from image.media_types import Compression
    from store.store import Session

_CHUNK: Final = 1 << 20


def recompressed(
    session: Session,
    blob: Descriptor,
    diff_id: DiffID,
    compression: Compression,
    level: int | None,
    *,
    portable: bool = False,
) -> Descriptor:
    """The same layer as an OCI blob of this compression and level, held by the session.

    The result depends on the layer's content alone, and is the same on every processor where it is
    ``portable``. Raises BlobNotFound, DigestMismatch when
    the content is not ``diff_id``'s, InvalidInput for a level that the codec does not have.
    """
    metadata = session.store.metadata
    words = ("blob", str(diff_id), compression, str(level), *(("portable",) if portable else ()))
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()
    record = metadata.cached(key)
    if record is not None and record.blob is not None and session.reuse(record.blob.digest):
        metadata.touch_cached([key])
        return record.blob
    made = _recompress(
        session, blob, diff_id, media_types.oci_layer(compression), compressor(compression, level, portable=portable)
    )
    label = f"layer {blob.digest.encoded[:12]} as {compression}" + (f" level {level}" if level is not None else "")
    metadata.add_cached(CacheRecord(key, None, diff_id, made, made.size, label))
    return made


def _recompress(session: Session, blob: Descriptor, diff_id: DiffID, media_type: str, codec: Compressor) -> Descriptor:
    content = hashlib.sha256()
    with (
        session.content.open(blob) as source,
        session.writer() as writer,
        closing(decompressor(media_types.layer_compression(blob.media_type))) as inflate,
    ):
        while chunk := source.read(_CHUNK):
            for piece in inflate.decompress(chunk):
                content.update(piece)
                writer.write(codec.compress(piece))
        writer.write(codec.flush())
        actual = DiffID.from_hash(content)
        if actual != diff_id:
            raise DigestMismatch(diff_id, actual, what=f"content of layer {blob.digest}")
        return Descriptor(media_type, writer.commit(), writer.size)
