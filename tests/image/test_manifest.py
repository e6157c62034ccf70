from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import InvalidManifest
from image.manifest import Index, Manifest, decode_manifest
from image.platform import Platform

CONFIG = Descriptor.of(b"{}", media_types.OCI_CONFIG)
LAYER = Descriptor.of(b"layer", media_types.OCI_LAYER_GZIP)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
descriptors = st.builds(
    Descriptor,
    st.sampled_from([media_types.OCI_LAYER, media_types.DOCKER_LAYER_GZIP]),
    st.binary(max_size=3).map(Digest.of),
    st.integers(0, 2**60),
    st.dictionaries(texts, texts, max_size=2),
    st.none() | st.just(Platform("linux", "arm", "v7", "1.2", ("x",))),
    st.lists(texts, max_size=2).map(tuple),
    st.sampled_from(["", "application/x"]),
    st.sampled_from(["", "e30="]),
)


@given(
    descriptors, st.lists(descriptors, max_size=3), st.dictionaries(texts, texts, max_size=2), st.none() | descriptors
)
def test_manifest_round_trip(
    config: Descriptor, layers: list[Descriptor], annotations: dict[str, str], subject: Descriptor | None
) -> None:
    built = Manifest.build(config, layers, annotations=annotations, subject=subject)
    assert decode_manifest(built.raw) == built


@given(st.lists(descriptors, max_size=3), st.sampled_from(sorted(media_types.INDEXES)))
def test_index_round_trip(manifests: list[Descriptor], media_type: str) -> None:
    built = Index.build(manifests, media_type=media_type)
    assert decode_manifest(built.raw, media_type) == built


def test_the_raw_bytes_are_kept_and_hashed() -> None:
    raw = json.dumps(json.loads(Manifest.build(CONFIG, [LAYER]).raw), indent=3).encode()
    decoded = decode_manifest(raw)
    assert decoded.raw == raw
    assert decoded.digest == Digest.of(raw)
    assert decoded.descriptor.size == len(raw)


def document(**changes: Any) -> bytes:
    manifest = json.loads(Manifest.build(CONFIG, [LAYER]).raw)
    return json.dumps({key: value for key, value in (manifest | changes).items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", ""), (b"[]", ""), (b"\xff", ""), (b"{" * 100_000, ""), (b'{"a":1,"a":2}', ""), (b"x" * (5 << 20), ""),
        (document(schemaVersion=1), "schemaVersion"),
        (document(schemaVersion=...), "schemaVersion"),
        (document(schemaVersion=True), "schemaVersion"),
        (document(config=...), "config"),
        (document(mediaType="text/html"), "mediaType"),
        (document(layers=[LAYER.to_json() | {"size": -1}]), "layers[0].size"),
        (document(layers=[LAYER.to_json() | {"size": 1.5}]), "layers[0].size"),
        (document(layers=[LAYER.to_json(), LAYER.to_json() | {"digest": "sha256:../x"}]), "layers[1].digest"),
        (document(layers=[LAYER.to_json() | {"annotations": {"a": 1}}]), "layers[0].annotations.a"),
        (document(layers={}), "layers"),
        (document(manifests=[]), ""),
    ],
    ids=range(17),
)  # fmt: skip
def test_malformed_names_the_field(raw: bytes, path: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        decode_manifest(raw)
    assert caught.value.path == path


def test_transport_and_document_must_agree() -> None:
    raw = Manifest.build(CONFIG, [LAYER]).raw
    with pytest.raises(InvalidManifest, match="transport says"):
        decode_manifest(raw, media_types.OCI_INDEX)
    assert decode_manifest(raw, media_types.OCI_MANIFEST + "; charset=utf-8").media_type == media_types.OCI_MANIFEST


def test_kind_by_shape_where_nothing_is_said() -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": [LAYER.to_json()]}).encode()
    assert isinstance(decode_manifest(index), Index)
    with pytest.raises(InvalidManifest):
        decode_manifest(index, media_types.OCI_MANIFEST)
