"""Image layouts: other images stay, names move, writers at once lose nothing, lies are refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from image.errors import DigestMismatch, InvalidManifest, ReferenceNotFound, TierceError
from store.store import Store
from tests.support.tiny_image import TinyImage, add_to_store, tiny_image
from tests.support.transfers import OPTIONS
from transfer.copy import copy
from transfer.transports.local import StoreSource, find_image
from transfer.transports.oci import OciSink, OciSource
from transfer.transports.oci_archive import OciArchiveSource
from transfer.transports.tar_output import TarOutput

IMAGES = [tiny_image({"file": b"%d" % number}) for number in range(8)]


def write(store: Store, image: TinyImage, layout: Path, ref: str) -> None:
    add_to_store(store, image, "app:1")
    with StoreSource(store, "app:1") as source, OciSink(layout, ref) as sink:
        copy(source, sink, OPTIONS)


def names(layout: Path) -> dict[str, str]:
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""): entry["digest"] for entry in entries
    }


def test_other_names_stay_and_a_name_moves(store: Store, tmp_path: Path) -> None:
    for image, ref in zip(IMAGES, ["a", "b", "a", ""], strict=False):
        write(store, image, tmp_path / "x", ref)
    expected = {"b": IMAGES[1], "a": IMAGES[2], "": IMAGES[3]}
    assert names(tmp_path / "x") == {ref: str(image.manifest.digest) for ref, image in expected.items()}


def test_members_of_the_index_that_we_do_not_know_stay(store: Store, tmp_path: Path) -> None:
    write(store, IMAGES[0], tmp_path / "x", "a")
    index = tmp_path / "x" / "index.json"
    document = json.loads(index.read_bytes())
    document["annotations"] = {"theirs": "1"}
    document["manifests"][0]["theirs"] = {"deep": [1, 2]}
    index.write_text(json.dumps(document))
    write(store, IMAGES[1], tmp_path / "x", "b")
    after = json.loads(index.read_bytes())
    assert after["annotations"] == {"theirs": "1"}
    assert after["manifests"][0] == document["manifests"][0]


def test_writers_at_once_lose_no_name(store: Store, tmp_path: Path) -> None:
    targets = [add_to_store(store, image, f"app:{number}") for number, image in enumerate(IMAGES)]

    def work(number: int) -> None:
        with StoreSource(store, f"app:{number}") as source, OciSink(tmp_path / "x", f"n{number}") as sink:
            copy(source, sink, OPTIONS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(IMAGES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path / "x") == {f"n{number}": str(target.digest) for number, target in enumerate(targets)}
    assert not [path for path in (tmp_path / "x").rglob("*") if path.name.endswith(".tmp")]


class TestChoosing:
    @pytest.fixture
    def layout(self, store: Store, tmp_path: Path) -> Path:
        for image, ref in zip(IMAGES, ["a", "b", ""], strict=False):
            write(store, image, tmp_path / "x", ref)
        return tmp_path / "x"

    @pytest.mark.parametrize(("wanted", "number"), [("a", 0), ("b", 1), ("@0", 0), ("@2", 2)])
    def test_found(self, layout: Path, wanted: str, number: int) -> None:
        assert OciSource(layout, wanted).root().digest == IMAGES[number].manifest.digest

    @pytest.mark.parametrize("wanted", ["c", "", "@3", "@", "@-1", "@x"])
    def test_not_found_says_what_there_is(self, layout: Path, wanted: str) -> None:
        with pytest.raises(ReferenceNotFound, match=r"a, b, @2|it has 3"):
            OciSource(layout, wanted).root()

    def test_no_layout(self, tmp_path: Path) -> None:
        with pytest.raises(ReferenceNotFound, match="is not an OCI image layout"):
            OciSource(tmp_path / "absent").root()


class TestLies:
    @pytest.mark.parametrize(
        "digest", ["sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "../x", "sha256:"]
    )
    def test_digest_that_is_a_path(self, tmp_path: Path, digest: str) -> None:
        entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
        (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        with pytest.raises(InvalidManifest, match=r"manifests\[0\]\.digest"):
            OciSource(tmp_path).root()

    def test_changed_blob(self, store: Store, tmp_path: Path) -> None:
        write(store, IMAGES[0], tmp_path / "x", "a")
        path = tmp_path / "x" / "blobs" / "sha256" / IMAGES[0].manifest.layers[0].digest.encoded
        path.write_bytes(b"X" + path.read_bytes()[1:])
        source = OciSource(tmp_path / "x")
        with pytest.raises(DigestMismatch), source.open_blob(IMAGES[0].manifest.layers[0]) as blocks:
            list(blocks)

    def test_archive_whose_member_leads_outside(self, tmp_path: Path) -> None:
        with TarOutput(str(tmp_path / "x.tar")) as tar:
            tar.add("../index.json", b"{}")
            tar.add("oci-layout", b"{}")
            tar.finish()
        with pytest.raises(TierceError), OciArchiveSource(str(tmp_path / "x.tar")) as source:
            source.root()


class TestNamesInTheStore:
    @pytest.mark.parametrize(
        "text", ["app:1", "docker.io/library/app:1", "{short}", "sha256:{short}", "{config}", "app@{digest}"]
    )
    def test_found(self, store: Store, text: str) -> None:
        target = add_to_store(store, IMAGES[0], "app:1")
        wanted = text.format(
            short=target.digest.short, digest=target.digest, config=IMAGES[0].manifest.config.digest.short
        )
        assert find_image(store, wanted).digest == target.digest

    @pytest.mark.parametrize("text", ["app:2", "other", "deadbeef", "app@sha256:" + "0" * 64])
    def test_not_found(self, store: Store, text: str) -> None:
        add_to_store(store, IMAGES[0], "app:1")
        with pytest.raises(ReferenceNotFound, match="not found in the store"):
            find_image(store, text)

    def test_a_name_that_looks_like_an_id(self, store: Store) -> None:
        first = add_to_store(store, IMAGES[0], "app:1")
        second = add_to_store(store, IMAGES[1], first.digest.short)
        assert find_image(store, first.digest.short).digest == second.digest
