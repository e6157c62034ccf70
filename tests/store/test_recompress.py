"""Layers in another compression: the same content, the same bytes whoever makes them, made once."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from image import media_types
from image.descriptor import Descriptor
from image.digest import DiffID
from image.errors import DigestMismatch, InvalidInput
from store.compression import decompressor
from store.recompress import recompressed
from store.store import Session, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Store.open(tmp_path / "root") as store, store.session() as session:
        yield session


def layer(session: Session, content: bytes = CONTENT) -> Descriptor:
    return session.put(gzip.compress(content, mtime=0), media_types.OCI_LAYER_GZIP)


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_the_content_stays(session: Session, compression: Compression) -> None:
    made = recompressed(session, layer(session), DiffID.of(CONTENT), compression, None)
    assert media_types.layer_compression(made.media_type) == compression
    raw = session.content.read(made)
    assert b"".join(decompressor(compression).decompress(raw)) == CONTENT


def test_the_way_there_does_not_matter(session: Session) -> None:
    """From gzip, or from gzip through zstd: the bytes of a layer depend on its content alone."""
    diff_id = DiffID.of(CONTENT)
    through = recompressed(session, layer(session), diff_id, "zstd", 3)
    direct = recompressed(session, layer(session), diff_id, "gzip", None)
    session.store.metadata.remove_cached([record.key for record in session.store.metadata.cache()])
    assert recompressed(session, through, diff_id, "gzip", None) == direct


def test_it_is_done_once(session: Session) -> None:
    source = layer(session)
    made = recompressed(session, source, DiffID.of(CONTENT), "zstd", 3)
    session.content.path(source.digest).unlink()
    assert recompressed(session, source, DiffID.of(CONTENT), "zstd", 3) == made


def test_other_content_is_refused(session: Session) -> None:
    with pytest.raises(DigestMismatch):
        recompressed(session, layer(session, b"other"), DiffID.of(CONTENT), "zstd", None)
    assert session.store.metadata.cache() == []


def test_a_level_that_there_is_not_is_refused(session: Session) -> None:
    with pytest.raises(InvalidInput):
        recompressed(session, layer(session), DiffID.of(CONTENT), "zstd", 99)
