"""Blobs that a registry is known to have: mounted by later processes, and never believed without asking."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.digest import Digest
from image.reference import Reference
from store.store import Store
from tests.support.fake_registry import FakeRegistry
from tests.support.registry import Registry, registry
from tests.support.tiny_image import TinyImage, add_to_store, tiny_image
from tests.support.transfers import OPTIONS, anonymous_registries
from transfer import known_blobs
from transfer.copy import copy
from transfer.known_blobs import KnownBlobs
from transfer.progress import BlobDone, Event
from transfer.pull import pull
from transfer.registries import RegistryOptions
from transfer.transports.local import StoreSource
from transfer.transports.registry import RegistrySink, RegistrySource

HOST, BLOB = "r.example", Digest.of(b"blob")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "root/known.db"


def written(file: Path, *paths: str) -> None:
    known = KnownBlobs(file)
    for path in paths:
        known.add(HOST, path, [BLOB])
    known.close()


def read(file: Path, but: str = "") -> tuple[str, ...]:
    known = KnownBlobs(file)
    try:
        return known.places(HOST, BLOB, but=but)
    finally:
        known.close()


class TestMemory:
    def test_the_last_places_of_all_processes(self, file: Path) -> None:
        written(file, "a", "b")
        written(file, "c", "a")
        assert read(file) == ("a", "c")
        assert read(file, but="a") == ("c", "b")
        assert file.stat().st_mode & 0o777 == 0o600

    def test_what_this_process_knows_comes_first(self, file: Path) -> None:
        written(file, "a", "b")
        known = KnownBlobs(file)
        known.add(HOST, "new", [BLOB])
        known.forget(HOST, "b", BLOB)
        assert known.places(HOST, BLOB, but="") == ("new", "a")
        known.close()
        assert read(file) == ("new", "a")

    def test_nothing_to_say_makes_no_file(self, file: Path) -> None:
        assert read(file) == ()
        assert not file.parent.exists()

    def test_the_oldest_go(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(known_blobs, "_MOST", 3)
        written(file, *"abcde")
        with sqlite3.connect(file) as database:
            assert database.execute("SELECT path FROM blobs ORDER BY path").fetchall() == [("c",), ("d",), ("e",)]

    def test_a_file_that_is_no_database_is_made_anew(self, file: Path) -> None:
        file.parent.mkdir()
        file.write_bytes(b"no database" * 1000)
        assert read(file) == ()
        written(file, "a")
        assert read(file) == ("a",)

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        written(tmp_path / "file/below", "a")
        assert read(tmp_path / "file/below") == ()

    def test_many_processes_at_once(self, file: Path) -> None:
        script = (
            "import sys; from pathlib import Path; from image.digest import Digest;"
            "from transfer.known_blobs import KnownBlobs as K\n"
            "for n in range(20):\n k = K(Path(sys.argv[1])); k.add('r', sys.argv[2], [Digest.of(b'%d' % n)]); k.close()"
        )
        running = [subprocess.Popen([sys.executable, "-c", script, file, name]) for name in "abc"]
        assert [process.wait() for process in running] == [0, 0, 0]
        with sqlite3.connect(file) as database:
            assert database.execute("SELECT count(*) FROM blobs").fetchall() == [(60,)]


# With registries

IMAGE = tiny_image({"a": b"1" * 5000}, {"b": b"2"})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry]]:
    with (
        registry(tmp_path_factory.mktemp("a")) as one,
        registry(tmp_path_factory.mktemp("b")) as other,
    ):
        yield one, other


def push(store: Store, image: TinyImage, target: str, file: Path) -> list[str]:
    """Copy from the store by a process of its own, so to say; how each blob got there."""
    add_to_store(store, image, "image:1")
    events: list[Event] = []
    with (
        anonymous_registries(RegistryOptions(known_blobs=file)) as registries,
        StoreSource(store, "image:1") as source,
        RegistrySink(Reference.parse(target), registries) as sink,
    ):
        copy(source, sink, OPTIONS, events.append)
    return [event.how for event in events if isinstance(event, BlobDone)]


def test_another_repository_gets_mounts(places: tuple[Registry, Registry], store: Store, file: Path) -> None:
    one, other = places
    assert push(store, IMAGE, one.name("first:1"), file) == ["copied"] * 3
    assert push(store, IMAGE, one.name("second:1"), file) == ["mounted"] * 3
    assert push(store, IMAGE, one.name("second:2"), file) == []
    assert push(store, IMAGE, other.name("third:1"), file) == ["copied"] * 3, "it is another registry"


def test_what_was_read_from_a_registry_is_mounted_there(
    places: tuple[Registry, Registry], store: Store, tmp_path: Path, file: Path
) -> None:
    """A base that was pulled is not uploaded beside where it came from."""
    base = tiny_image({"base": b"base" * 9})
    name = places[0].name("base:1")
    push(store, base, name, tmp_path / "elsewhere.db")
    with Store.open(tmp_path / "pulled") as pulled:
        with anonymous_registries(RegistryOptions(known_blobs=file)) as registries:
            pull(Reference.parse(name), pulled, registries, OPTIONS, unpack=False)
        assert set(push(pulled, base, places[0].name("beside:1"), file)) == {"mounted"}


def test_what_is_not_so_costs_an_upload_and_is_forgotten(fake: FakeRegistry, store: Store, file: Path) -> None:
    layer = IMAGE.manifest.layers[0].digest
    known = KnownBlobs(file)
    known.add(fake.host, "gone", [layer])
    known.close()
    assert push(store, IMAGE, f"{fake.host}/app:1", file) == ["copied"] * 3
    known = KnownBlobs(file)
    assert known.places(fake.host, layer, but="") == ("app",)
    known.close()


def test_a_source_tells_only_what_it_gave(places: tuple[Registry, Registry], store: Store, file: Path) -> None:
    name = places[0].name("partly:1")
    push(store, IMAGE, name, file.with_name("other.db"))
    with (
        anonymous_registries(RegistryOptions(known_blobs=file)) as registries,
        RegistrySource(Reference.parse(name), registries) as source,
    ):
        source.root()
    assert not file.exists()
