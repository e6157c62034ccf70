"""Images that Quay would delete after a while, because a label of theirs says so."""

from __future__ import annotations

import json

import pytest

from fixtures.registries import GHCR, PLAIN, QUAY, Behaviour, Emulator
from image import media_types
from image.descriptor import Descriptor
from image.manifest import Manifest
from image.reference import Reference
from tests.support.registry_lab import BOB, Lab
from tests.support.tiny_image import tiny_image
from tests.support.transfers import OPTIONS
from transfer.copy import copy
from transfer.transports.registry import RegistrySink, RegistrySource, quay_expiry


def add_labelled(registry: Emulator, labels: dict[str, str]) -> None:
    """``app:1``, whose configuration has these labels."""
    plain = tiny_image({"file": b"x"})
    config = json.loads(plain.blobs[str(plain.manifest.config.digest)])
    raw = json.dumps(config | {"config": {"Labels": labels}}).encode()
    manifest = Manifest.build(Descriptor.of(raw, media_types.OCI_CONFIG), plain.manifest.layers)
    blobs = {**plain.blobs, str(manifest.config.digest): raw}
    registry.add_image("app", "1", manifest.media_type, manifest.raw, blobs)


@pytest.mark.parametrize(
    ("behaviour", "labels", "warned"),
    [
        (QUAY, {"quay.expires-after": "2w"}, ["quay.io: quay.io/me/app:1 has the label quay.expires-after=2w: Quay deletes the tag after that time"]),
        (QUAY, {"other": "2w"}, []),
        (GHCR, {"quay.expires-after": "2w"}, []),
    ],
    ids=["told", "without-the-label", "elsewhere"],
)  # fmt: skip
def test_a_copy_to_quay(lab: Lab, behaviour: Behaviour, labels: dict[str, str], warned: list[str]) -> None:
    source, there = lab.run(PLAIN), lab.run(behaviour)
    add_labelled(source, labels)
    registries = lab.registries(there, source, credential=BOB)
    warnings: list[str] = []
    registries._warn = warnings.append
    for _ in range(2):
        origin = RegistrySource(Reference.parse(f"{source.host}/app:1"), registries)
        with origin, RegistrySink(Reference.parse(f"{behaviour.host}/me/app:1"), registries) as sink:
            copy(origin, sink, OPTIONS)
    assert warnings == warned


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"config": null}', b'{"config": {"Labels": {"quay.expires-after": 3}}}', b"[" * 100_000])  # fmt: skip
def test_what_is_no_label(raw: bytes) -> None:
    assert quay_expiry(raw) == ""
