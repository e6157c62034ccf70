"""Cache documents: what is written is what is read, and what is damaged is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cache_export import (
    CacheContents,
    MountRecord,
    decode_cache,
    decode_inline,
    encode_cache,
    encode_inline,
)
from builder.results import BuiltLayer
from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import ChainID, DiffID, Digest, chain_ids
from image.errors import InvalidConfig
from image.platform import Platform
from store.metadata import CacheRecord

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
DIGESTS = HEX.map(lambda text: f"sha256:{text}")
BLOBS = st.builds(Descriptor, st.just(media_types.OCI_LAYER_GZIP), DIGESTS.map(Digest), st.integers(0, 1 << 40))
RECORDS = st.builds(
    CacheRecord, HEX, DIGESTS.map(ChainID), DIGESTS.map(DiffID), BLOBS, st.just(0), st.text(max_size=20),
    st.floats(0, 1e10),
)  # fmt: skip
LINKS = st.builds(CacheRecord, HEX, st.none(), st.none(), st.none(), st.just(0), HEX)
MOUNTS = st.builds(MountRecord, HEX, st.text(max_size=20), BLOBS, DIGESTS.map(DiffID))


@given(
    st.lists(RECORDS | LINKS, unique_by=lambda record: record.key),
    st.lists(MOUNTS, max_size=3, unique_by=lambda mount: mount.name),
)
def test_a_cache_is_read_as_it_was_written(records: list[CacheRecord], mounts: list[MountRecord]) -> None:
    raw, layers = encode_cache(records, mounts)
    sizes = {layer.digest: layer for layer in layers}
    assert len(sizes) == len(layers)
    found = decode_cache(raw, layers)
    assert list(found.records) == [record.key for record in records]
    for record in records:
        assert found.records[record.key].label == record.label
        assert found.records[record.key].chain_id == record.chain_id
        assert found.records[record.key].diff_id == record.diff_id
        if record.blob is not None:
            blob = found.records[record.key].blob
            assert blob is not None
            assert blob.digest == record.blob.digest
    assert {mount.name: mount.diff_id for mount in mounts} == {
        name: mount.diff_id for name, mount in found.mounts.items()
    }
    assert encode_cache(records, mounts) == (raw, layers)


def stack(count: int) -> tuple[BuiltLayer, ...]:
    diffs = tuple(DiffID.of(b"%d" % number) for number in range(count))
    return tuple(
        BuiltLayer(chain, diff, Descriptor.of(str(diff).encode(), media_types.OCI_LAYER_GZIP), 1.5)
        for chain, diff in zip(chain_ids(diffs), diffs, strict=True)
    )


def test_an_image_carries_its_records_and_stays_an_image() -> None:
    layers = stack(3)
    records = [
        CacheRecord("a" * 64, layer.chain_id, layer.diff_id, layer.blob, 0, "RUN x", layer.created_s)
        for layer in layers[1:2]
    ]
    link = CacheRecord("b" * 64, None, None, None, 0, "a" * 64)
    config = ImageConfig(Platform("linux", "amd64"), diff_ids=tuple(layer.diff_id for layer in layers))
    raw = config.encode(encode_inline([*records, link], layers))
    assert ImageConfig.decode(raw) == config
    found = decode_inline(raw, config.diff_ids, [layer.blob for layer in layers])
    assert found.records == {"a" * 64: records[0], "b" * 64: link}
    assert decode_inline(config.encode(), config.diff_ids, [layer.blob for layer in layers]) == CacheContents()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda document: document.update(version=2), "version"),
        (lambda document: document["records"][0].update(layer=5), "records[0].layer"),
        (lambda document: document["records"][0].update(layer=-1), "records[0].layer"),
        (lambda document: document["records"][0].update(diff="md5:1"), "records[0].diff"),
        (lambda document: document["records"][0].update(chain="x"), "records[0]"),
        (lambda document: document["records"][0].update(created="now"), "records[0].created"),
        (lambda document: document["records"][0].pop("key"), "records[0].key"),
        (lambda document: document.update(records={}), "records"),
        (lambda document: document.pop("mounts"), "mounts"),
    ],
)
def test_a_damaged_cache_is_refused_where_it_is_damaged(change: Any, place: str) -> None:
    layer = stack(1)[0]
    record = CacheRecord("a" * 64, layer.chain_id, layer.diff_id, layer.blob, 0, "RUN x", 1.0)
    raw, layers = encode_cache([record], [])
    document = json.loads(raw)
    change(document)
    with pytest.raises(InvalidConfig) as caught:
        decode_cache(json.dumps(document).encode(), layers)
    assert caught.value.path.startswith(place)
