"""A layer on its way: out of one compression, verified against its diff_id, and into another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from image.digest import DiffID
from image.errors import DigestMismatch, InvalidArchive
from store.compression import PREFIX_SIZE, compressor, decompressor, detect
from transfer.ports import Block
from transfer.streams import HashThread

if TYPE_CHECKING:
    from image.media_types import Compression

_MAX_LAYER_SIZE: Final = 1 << 40
"""Bytes that one layer may inflate to."""


def inflated(blocks: Iterator[Block], diff_id: DiffID, *, limit: int = _MAX_LAYER_SIZE) -> Iterator[bytes]:
    """A layer blob's tar, verified against its diff_id at the end.

    Raises DigestMismatch; InvalidArchive for a damaged blob and one of more than ``limit`` bytes.
    """
    first = bytes(next(blocks, b""))
    codec = decompressor(detect(first[:PREFIX_SIZE]))
    size = 0
    with HashThread(diff_id.hasher()) as hashing:
        hashing.allow(8)

        def pieces() -> Iterator[bytes]:
            yield from codec.decompress(first)
            for block in blocks:
                yield from codec.decompress(bytes(block))
            codec.close()

        for piece in pieces():
            size += len(piece)
            if size > limit:
                raise InvalidArchive(f"layer inflates to more than {limit} bytes")
            hashing.wait_for_room()
            hashing.feed(memoryview(piece))
            yield piece
        actual = DiffID.from_hash(hashing.finish())
    if actual != diff_id:
        raise DigestMismatch(diff_id, actual, what="content of a layer")


def packed(blocks: Iterable[Block], compression: Compression, level: int | None = None) -> Iterator[bytes]:
    """A tar's blocks compressed. Raises InvalidInput for a level that the codec does not have."""
    codec = compressor(compression, level)
    for block in blocks:
        if done := codec.compress(bytes(block)):
            yield done
    yield codec.flush()
