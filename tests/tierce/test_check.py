"""The checker of the store: whole stores pass, each kind of damage is named, nothing else is."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from image import media_types
from image.config import ContainerConfig, ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID
from image.manifest import Manifest
from image.platform import Platform
from image.reference import Reference
from store.store import Store
from store.unpacking import ensure_unpacked
from tests.tierce.conftest import Stock
from tierce.check import Finding, Hashed, Problem, Unused, check_store, repair


def _check(root: Path) -> list[Finding]:
    with Store.open(root) as store:
        return list(check_store(store))


def _problems(root: Path) -> list[str]:
    return [f"{finding.area}: {finding.message}" for finding in _check(root) if isinstance(finding, Problem)]


@pytest.fixture
def unpacked(stock: Stock) -> Stock:
    """An image with its layer unpacked, and one without."""
    target = stock.add("app")
    stock.add("other", content="other")
    with Store.open(stock.root) as store, store.session() as session:
        ensure_unpacked(session, store.facts(target))
    return stock


def _blob(root: Path, largest: bool = True) -> Path:
    blobs = sorted((root / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    return blobs[-1 if largest else 0]


def _layer(root: Path) -> Path:
    [directory] = [path for path in (root / "overlay2").iterdir() if len(path.name) == 32]
    return directory


def test_a_whole_store_has_no_findings(unpacked: Stock) -> None:
    assert _check(unpacked.root) == []


def test_an_empty_store_is_whole(stock: Stock) -> None:
    assert _check(stock.root) == []


def test_progress_ends_at_the_total(unpacked: Stock) -> None:
    seen: list[Hashed] = []
    with Store.open(unpacked.root) as store:
        list(check_store(store, seen.append))
    assert seen[-1].done == seen[-1].total > 0
    assert [one.done for one in seen] == sorted(one.done for one in seen)


def _flip_a_byte(root: Path) -> None:
    path = _blob(root)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _delete_a_blob(root: Path) -> None:
    _blob(root, largest=False).unlink()


def _name_a_blob_oddly(root: Path) -> None:
    (root / "blobs" / "sha256" / "odd").write_bytes(b"")


def _delete_the_files(root: Path) -> None:
    os.rename(_layer(root) / "diff", root / "elsewhere")


def _truncate_a_file(root: Path) -> None:
    (_layer(root) / "diff" / "greeting").write_bytes(b"h")


def _delete_the_short_name(root: Path) -> None:
    (root / "overlay2" / "l" / _layer(root).name[:12]).unlink()


def _empty_the_index(root: Path) -> None:
    """By hand, leaving the annotation by which a store knows its own index."""
    document = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps({**document, "manifests": []}, separators=(",", ":")))


def _break_the_marker(root: Path) -> None:
    (root / "oci-layout").write_text("{")


def _leave_an_ingest(root: Path) -> None:
    (root / "ingest" / "0123456789abcdef-1").write_bytes(b"half")


def _leave_a_directory(root: Path) -> None:
    (root / "overlay2" / ("ab" * 16)).mkdir()


def _leave_lease_records(root: Path) -> None:
    with sqlite3.connect(root / "metadata.db") as database:
        database.execute("INSERT INTO leases VALUES ('dead', 'blob', 'sha256:00')")
    database.close()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_flip_a_byte, "blob: blob sha256:"),
        (_delete_a_blob, "is needed but missing"),
        (_name_a_blob_oddly, "blob: blobs/sha256/odd is not named by a digest"),
        (_delete_the_files, "its files are missing"),
        (_truncate_a_file, "its files have 1 bytes, 5 were unpacked"),
        (_delete_the_short_name, "does not lead to its files"),
        (_empty_the_index, "index: index.json lacks docker.io/library/app:latest"),
        (_break_the_marker, "index: index.json or oci-layout can't be read"),
        (_leave_an_ingest, "leftover: ingest/0123456789abcdef-1 belongs to no running process"),
        (_leave_a_directory, "is no layer and belongs to no running process"),
        (_leave_lease_records, "leftover: records of the ended session dead remain"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else None,
)
def test_damage_is_named(damage: Callable[[Path], None], told: str, unpacked: Stock) -> None:
    damage(unpacked.root)
    problems = _problems(unpacked.root)
    assert any(told in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    "damage",
    [_empty_the_index, _break_the_marker, _leave_an_ingest, _leave_a_directory],
    ids=lambda value: value.__name__,
)
def test_repair(damage: Callable[[Path], None], unpacked: Stock) -> None:
    damage(unpacked.root)
    with Store.open(unpacked.root) as store:
        repair(store)
    assert _check(unpacked.root) == []


@pytest.mark.parametrize("text", ["", "{", '{"schemaVersion":2,"manifests":[]}'])
def test_an_index_that_is_not_the_stores_is_mended_when_the_store_is_opened(text: str, unpacked: Stock) -> None:
    before = (unpacked.root / "index.json").read_text()
    (unpacked.root / "index.json").write_text(text)
    assert _check(unpacked.root) == []
    assert json.loads((unpacked.root / "index.json").read_text())["manifests"] == json.loads(before)["manifests"]


def test_what_is_not_needed_is_no_damage(unpacked: Stock) -> None:
    with Store.open(unpacked.root) as store:
        for record in store.metadata.images():
            store.remove_image(record.target.digest)
    assert {type(finding) for finding in _check(unpacked.root)} == {Unused}


def test_a_running_process_is_no_damage(unpacked: Stock) -> None:
    """A session with a half-written blob, a committed one, and a workspace."""
    with Store.open(unpacked.root) as store, store.session() as session:
        session.workspace(None)
        session.put(b"{}", media_types.OCI_EMPTY)
        with session.writer() as writer:
            writer.write(b"half")
            assert _problems(unpacked.root) == []


def test_a_tar_that_has_a_path_twice_is_no_damage(stock: Stock) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for content in (b"first, and longer", b"last"):
            entry = tarfile.TarInfo("./twice")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    _add_layer(stock.root, tar.getvalue())
    assert _problems(stock.root) == []


def _add_layer(root: Path, tar: bytes) -> Descriptor:
    with Store.open(root) as store, store.session() as session:
        layer = session.put(gzip.compress(tar), media_types.OCI_LAYER_GZIP)
        config = ImageConfig(Platform("linux", "amd64"), ContainerConfig(), (DiffID.of(tar),))
        manifest = Manifest.build(session.put(config.encode(), media_types.OCI_CONFIG), [layer])
        target = session.put(manifest.raw, manifest.media_type)
        ensure_unpacked(session, store.facts(target))
        store.add_image(target, [Reference.parse("twice:1")])
    return target
