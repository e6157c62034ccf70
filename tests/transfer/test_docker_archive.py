"""docker archives of all ages, streams, and archives that lie."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from image import media_types
from image.config import ImageConfig
from image.digest import DiffID, Digest
from image.errors import DigestMismatch, InvalidArchive, InvalidInput, ReferenceNotFound, TierceError
from image.platform import Platform
from image.reference import Reference
from store.store import Store
from tests.support.tiny_image import TinyImage, add_to_store, layer_tar, tiny_image
from tests.support.transfers import OPTIONS
from transfer.archives import load, save
from transfer.layer_streams import inflated
from transfer.transports.files import NewFile

LAYERS = [layer_tar({"one": b"1" * 3000}), layer_tar({"two": b"2"})]
CONFIG = ImageConfig(Platform("linux", "amd64"), diff_ids=tuple(DiffID.of(layer) for layer in LAYERS)).encode()

Member = bytes | str


def archive(path: Path, members: Mapping[str, Member], *, mode: str = "w") -> str:
    """A tar with these members; a string is a symbolic link's target."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return str(path)


def contents(*layers: str, config: str = "c.json", names: list[str] | None = None) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": names or ["app:1"], "Layers": list(layers)}]).encode()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    target = tmp_path / "target"
    make(target)
    before = os.lstat(target)
    with pytest.raises(InvalidInput, match="device or a pipe"):
        NewFile(target)
    assert os.lstat(target) == before
    assert os.listdir(tmp_path) == ["target"]


FORMS: dict[str, dict[str, Member]] = {
    "skopeo": {"a.tar": LAYERS[0], "b.tar": LAYERS[1], "c.json": CONFIG, "manifest.json": contents("a.tar", "b.tar")},
    "docker-1.10": {
        "a/layer.tar": LAYERS[0], "b/layer.tar": "../x/layer.tar", "x/layer.tar": LAYERS[1], "c.json": CONFIG,
        "manifest.json": contents("a/layer.tar", "b/layer.tar"),
    },
    "docker-25": {
        "blobs/sha256/a": LAYERS[0], "blobs/sha256/b": LAYERS[1], "blobs/sha256/c": CONFIG, "oci-layout": b"{}",
        "index.json": b"{}", "manifest.json": contents("blobs/sha256/a", "blobs/sha256/b", config="blobs/sha256/c"),
    },
    "compressed-layers": {
        "a": gzip.compress(LAYERS[0]), "b": LAYERS[1], "c.json": CONFIG, "manifest.json": contents("a", "b"),
    },
    "dot-slash": {"./a": LAYERS[0], "./b": LAYERS[1], "./c.json": CONFIG, "./manifest.json": contents("a", "b")},
}  # fmt: skip


def loaded_files(store: Store, name: str = "docker.io/library/app:1") -> list[bytes]:
    """The layers' tars, as they are now in the store."""
    record = store.metadata.name(name)
    assert record is not None
    facts = store.facts(record.target)
    return [gzip.decompress(store.content.path(layer.digest).read_bytes()) for layer in facts.layers]


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_archive(store: Store, tmp_path: Path, form: str) -> None:
    [image] = load(archive(tmp_path / "a.tar", FORMS[form]), store, OPTIONS, unpack=False)
    assert [name.familiar for name in image.names] == ["app:1"]
    assert loaded_files(store) == LAYERS
    assert store.facts(image.pulled.target).config == str(Digest.of(CONFIG))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_compressed_archive(store: Store, tmp_path: Path, mode: str) -> None:
    load(archive(tmp_path / "a.tar", FORMS["skopeo"], mode=mode), store, OPTIONS, unpack=False)
    assert loaded_files(store) == LAYERS


def test_stream_that_cannot_seek(store: Store, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = Path(archive(tmp_path / "a.tar", FORMS["skopeo"])).read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    load(str(pipe), store, OPTIONS, unpack=False)
    writer.join()
    assert loaded_files(store) == LAYERS


PIPED = """
import sys
from pathlib import Path
from store.store import Store
from tests.support.transfers import OPTIONS
from transfer.archives import load, save
with Store.open(Path(sys.argv[2])) as store:
    save(["app:1"], "-", store, OPTIONS) if sys.argv[1] == "save" else load("-", store, OPTIONS, unpack=False)
"""


def test_standard_streams(store: Store, tmp_path: Path) -> None:
    image = tiny_image({"x": b"y" * 100_000})
    add_to_store(store, image, "app:1")
    command = [sys.executable, "-c", PIPED]
    saved = subprocess.run([*command, "save", str(store.root)], check=True, capture_output=True).stdout
    subprocess.run([*command, "load", str(tmp_path / "other")], check=True, input=saved)
    with Store.open(tmp_path / "other") as other:
        record = other.metadata.name("docker.io/library/app:1")
        assert record is not None
        assert other.facts(record.target).config == str(image.manifest.config.digest)


def broken(**changes: Member | None) -> dict[str, Member]:
    members = {**FORMS["skopeo"], **{name.replace("_", "."): content for name, content in changes.items()}}
    return {name: content for name, content in members.items() if content is not None}


class TestLies:
    @pytest.mark.parametrize(
        ("members", "message"),
        [
            pytest.param(broken(manifest_json=None), "it has no manifest.json|no index.json", id="no-table"),
            pytest.param(broken(b_tar=None), "has no 'b.tar'", id="no-layer"),
            pytest.param(broken(c_json=None), "has no 'c.json'", id="no-config"),
            pytest.param(broken(manifest_json=b"[{]"), "manifest.json", id="no-json"),
            pytest.param(broken(manifest_json=b"[" * 100_000), "manifest.json", id="deep-json"),
            pytest.param(broken(manifest_json=b'[{"Config":1,"Layers":[1]}]'), "not a list of strings", id="types"),
            pytest.param(broken(manifest_json=contents("a.tar")), "1 layers, but the config has 2", id="layer-count"),
            pytest.param(broken(manifest_json=contents("../../etc/passwd", "b.tar")), "has no", id="dot-dot"),
            pytest.param(broken(a_tar="../../../etc/passwd"), "has no 'a.tar'", id="link-out"),
            pytest.param(broken(a_tar="b.tar", b_tar="a.tar"), "links lead to each other", id="link-loop"),
            pytest.param(broken(a_tar=LAYERS[1]), "digest", id="wrong-layer"),
            pytest.param(broken(manifest_json=b" " * (5 << 20)), "over the limit", id="huge-table"),
            pytest.param(broken(manifest_json=contents("a.tar", "b.tar", names=["../x:1"])), "invalid", id="bad-name"),
        ],
    )
    def test_refused(self, store: Store, tmp_path: Path, members: dict[str, Member], message: str) -> None:
        with pytest.raises(TierceError, match=message):
            load(archive(tmp_path / "a.tar", members), store, OPTIONS, unpack=False)
        assert store.metadata.images() == []
        assert list((store.root / "ingest").iterdir()) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            pytest.param(lambda data: data[:5000], "truncated", id="cut"),
            pytest.param(lambda data: b"X" * 2000, "is not a tar archive", id="no-tar"),
            pytest.param(lambda data: b"", "no images|no index.json|empty", id="empty"),
            pytest.param(lambda data: gzip.compress(data)[:300], "truncated", id="cut-gzip"),
        ],
    )
    def test_damaged(self, store: Store, tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
        path = Path(archive(tmp_path / "a.tar", FORMS["skopeo"]))
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(InvalidArchive, match=message):
            load(str(path), store, OPTIONS, unpack=False)

    def test_absent(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ReferenceNotFound, match="does not exist"):
            load(str(tmp_path / "absent.tar"), store, OPTIONS)


class TestSave:
    def test_layers_are_uncompressed_and_shared_between_images(self, store: Store, tmp_path: Path) -> None:
        shared = {"base": b"b" * 5000}
        images = [tiny_image(shared, {"own": b"1"}), tiny_image(shared, {"own": b"2"})]
        for number, image in enumerate(images):
            add_to_store(store, image, f"app:{number}")
        save(["app:0", "app:1"], str(tmp_path / "a.tar"), store, OPTIONS)
        with tarfile.open(tmp_path / "a.tar") as tar:
            layers = [name for name in tar.getnames() if name.endswith(".tar")]
            table = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
            assert tar.extractfile(layers[0]).read() == layer_tar(shared)  # type: ignore[union-attr]
        assert len(layers) == 3
        assert [entry["RepoTags"] for entry in table] == [[f"docker.io/library/app:{n}"] for n in (0, 1)]
        assert table[0]["Layers"][0] == table[1]["Layers"][0]

    def test_two_names_of_one_image_are_one_entry(self, store: Store, tmp_path: Path) -> None:
        image = tiny_image()
        target = add_to_store(store, image, "app:1")
        store.add_image(target, [Reference.parse("docker.io/library/app:2")])
        save(["app:1", "app:2", target.digest.short], str(tmp_path / "a.tar"), store, OPTIONS)
        with tarfile.open(tmp_path / "a.tar") as tar:
            table = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert [entry["RepoTags"] for entry in table] == [["docker.io/library/app:1", "docker.io/library/app:2"]]

    def test_same_image_same_archive(self, store: Store, tmp_path: Path) -> None:
        add_to_store(store, tiny_image(), "app:1")
        for name in ("a", "b"):
            save(["app:1"], str(tmp_path / name), store, OPTIONS)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_absent_image_leaves_the_old_file(self, store: Store, tmp_path: Path) -> None:
        add_to_store(store, tiny_image(), "app:1")
        (tmp_path / "a.tar").write_bytes(b"precious")
        with pytest.raises(ReferenceNotFound):
            save(["app:1", "absent"], str(tmp_path / "a.tar"), store, OPTIONS)
        assert (tmp_path / "a.tar").read_bytes() == b"precious"

    def test_damaged_blob_leaves_the_old_file(self, store: Store, tmp_path: Path) -> None:
        image: TinyImage = tiny_image()
        add_to_store(store, image, "app:1")
        path = store.content.path(image.manifest.layers[0].digest)
        path.chmod(0o644)
        path.write_bytes(b"X" + path.read_bytes()[1:])
        (tmp_path / "a.tar").write_bytes(b"precious")
        with pytest.raises(TierceError):
            save(["app:1"], str(tmp_path / "a.tar"), store, OPTIONS)
        assert (tmp_path / "a.tar").read_bytes() == b"precious"
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar", "store"]


def test_inflated_layer_must_be_the_one_that_the_config_names() -> None:
    blocks = iter([gzip.compress(LAYERS[0])])
    with pytest.raises(DigestMismatch):
        list(inflated(blocks, DiffID.of(b"other")))


def test_archive_layers_become_gzip_in_the_store(store: Store, tmp_path: Path) -> None:
    [image] = load(archive(tmp_path / "a.tar", FORMS["skopeo"]), store, OPTIONS, unpack=False)
    blobs = {blob.media_type for blob in store.facts(image.pulled.target).blobs}
    assert blobs == {media_types.OCI_MANIFEST, media_types.OCI_CONFIG, media_types.OCI_LAYER_GZIP}


def test_bomb_hits_the_limit() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    with pytest.raises(InvalidArchive, match="inflates to more than 1048576 bytes"):
        for _ in inflated(iter([bomb]), DiffID.of(b""), limit=1 << 20):
            pass
