"""Layers of an image, unpacked side by side and stacked in order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.descriptor import Descriptor
from image.digest import chain_ids
from image.errors import BlobNotFound, DigestMismatch, TierceError
from store.layers import mounted
from store.store import Store
from store.unpack import Unpacked
from store.unpacking import Unpacking, ensure_unpacked
from tests.support.tiny_image import add_to_store, tiny_image

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def test_stack_is_what_the_layers_say(store: Store) -> None:
    image = tiny_image({"etc/a": b"1", "gone": b"x"}, {"etc/b": b"2", ".wh.gone": b""}, {"etc/a": b"3"})
    target = add_to_store(store, image, "app:1")
    with store.session() as session:
        top = ensure_unpacked(session, store.facts(target))
        with mounted(store.layers.overlay([layer.directory for layer in store.layers.stack(top)])) as root:
            listed = {
                name: Path(f"/proc/self/fd/{root}/etc/{name}").read_text()
                for name in os.listdir(f"/proc/self/fd/{root}/etc")
            }
            assert listed == {"a": "3", "b": "2"}
            assert os.listdir(root) == ["etc"]


def test_second_time_does_nothing(store: Store) -> None:
    target = add_to_store(store, tiny_image({"a": b"1"}, {"b": b"2"}), "app:1")
    seen: list[Descriptor] = []

    def note(layer: Descriptor, unpacked: Unpacked | None) -> None:
        seen.append(layer)

    with store.session() as session:
        first = ensure_unpacked(session, store.facts(target), note)
        assert len(seen) == 4
        assert ensure_unpacked(session, store.facts(target), note) == first
    assert len(seen) == 4


def test_shared_layers_are_unpacked_once(store: Store) -> None:
    base = {"base": b"b"}
    for number in (1, 2):
        target = add_to_store(store, tiny_image(base, {f"own{number}": b"x"}), f"app:{number}")
        with store.session() as session:
            ensure_unpacked(session, store.facts(target))
    assert len(store.metadata.layers()) == 3


def test_image_without_layers(store: Store) -> None:
    with store.session() as session, Unpacking(session, []) as unpacking:
        assert unpacking.finish() is None


def test_the_same_layer_twice(store: Store) -> None:
    target = add_to_store(store, tiny_image({"a": b"1"}, {"b": b"2"}, {"a": b"1"}), "app:1")
    with store.session() as session:
        top = ensure_unpacked(session, store.facts(target))
    assert len(store.layers.stack(top)) == 3


def test_blob_that_is_not_there(store: Store) -> None:
    image = tiny_image()
    facts = store.facts(add_to_store(store, image, "app:1"))
    store.content.delete(image.manifest.layers[0].digest)
    with store.session() as session, pytest.raises(BlobNotFound):
        ensure_unpacked(session, facts)


def test_any_order_of_arrival(store: Store) -> None:
    image = tiny_image({"a": b"1"}, {"b": b"2"}, {"c": b"3"})
    facts = store.facts(add_to_store(store, image, "app:1"))
    layers = list(zip(facts.layers, image.manifest.layers, strict=True))
    with store.session() as session, Unpacking(session, layers) as unpacking:
        for _, blob in reversed(layers):
            unpacking.start(blob)
        assert unpacking.finish() == chain_ids(layer.diff_id for layer in facts.layers)[-1]


def test_content_that_the_config_does_not_name(store: Store) -> None:
    """The blob is whole, but the config promised another tar."""
    honest, other = tiny_image({"a": b"1"}), tiny_image({"a": b"2"})
    facts = store.facts(add_to_store(store, honest, "app:1"))
    blob = other.manifest.layers[0]
    with store.session() as session:
        session.put(other.blobs[str(blob.digest)], blob.media_type)
        with (
            pytest.raises(DigestMismatch, match="content of layer"),
            Unpacking(session, [(facts.layers[0], blob)]) as unpacking,
        ):
            unpacking.start(Descriptor(blob.media_type, facts.layers[0].digest, blob.size))
            unpacking.finish()
    assert store.metadata.layers() == []


def test_damaged_blob_leaves_no_directory(store: Store) -> None:
    image = tiny_image({"a": b"1" * 10_000})
    target = add_to_store(store, image, "app:1")
    path = store.content.path(image.manifest.layers[0].digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TierceError), store.session() as session:
        ensure_unpacked(session, store.facts(target))
    assert store.layers.directories() == set()


def test_root_directory_is_the_base_s_unless_the_layer_has_its_own(store: Store) -> None:
    image = tiny_image({"a": b"1"}, {"b": b"2"})
    facts = store.facts(add_to_store(store, image, "app:1"))
    layers = list(zip(facts.layers, image.manifest.layers, strict=True))
    with store.session() as session:
        with Unpacking(session, layers[:1]) as unpacking:
            base = unpacking.finish()
        assert base is not None
        os.chmod(store.layers.diff(store.layers.get(base)), 0o711)
        with Unpacking(session, layers) as unpacking:
            top = unpacking.finish()
        assert top is not None
        assert stat.S_IMODE(store.layers.diff(store.layers.get(top)).stat().st_mode) == 0o711
