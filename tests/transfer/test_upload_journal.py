"""An upload that was interrupted is gone on with by another process, where the registry allows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, Emulator, emulate
from image.digest import Digest
from image.reference import Reference
from store.store import Store
from tests.support.registry import Registry, registry
from tests.support.tiny_image import add_to_store, tiny_image
from tests.support.transfers import OPTIONS, anonymous_registries
from transfer.copy import copy
from transfer.registries import RegistryOptions
from transfer.registry.client import Upload
from transfer.transports import registry as registry_transport
from transfer.transports.local import StoreSource
from transfer.transports.registry import RegistrySink
from transfer.upload_journal import UploadJournal

SIZE = 20 << 20
IMAGE = tiny_image({"big": bytes(range(256)) * (SIZE // 256)}, compress=False)
LAYER = IMAGE.manifest.layers[0]
DIGEST = Digest.of(b"x")
AT = "https://r.example/v2/app/blobs/uploads/1?_state=abc"

KILLED = """
import os, signal, sys
from pathlib import Path
from image.reference import Reference
from store.store import Store
from tests.support.transfers import OPTIONS, anonymous_registries
from transfer.copy import copy
from transfer.registries import RegistryOptions
from transfer.transports import registry
from transfer.transports.local import StoreSource
from transfer.upload_journal import Note

keep, kept = Note.keep, []

def keep_and_die(note, upload):
    keep(note, upload)
    kept.append(upload.offset)
    if upload.offset >= 8 << 20:
        os.kill(os.getpid(), signal.SIGKILL)

Note.keep = keep_and_die
registry.RESUMABLE_FROM = 1 << 20
uploads = RegistryOptions(uploads=Path(sys.argv[3]))
with Store.open(Path(sys.argv[1])) as store, anonymous_registries(uploads) as registries:
    with StoreSource(store, "app:1") as source, registry.RegistrySink(Reference.parse(sys.argv[2]), registries) as sink:
        copy(source, sink, OPTIONS)
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with emulate(PLAIN) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry") as running:
        yield running


def push_and_die(store: Store, name: str, uploads: Path) -> None:
    add_to_store(store, IMAGE, "app:1")
    argv = [sys.executable, "-c", KILLED, str(store.root), name, str(uploads)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


def push(store: Store, name: str, uploads: Path) -> None:
    with (
        anonymous_registries(RegistryOptions(uploads=uploads)) as registries,
        StoreSource(store, "app:1") as source,
        RegistrySink(Reference.parse(name), registries) as sink,
    ):
        copy(source, sink, OPTIONS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_transport, "RESUMABLE_FROM", 1 << 20)


@pytest.mark.usefixtures("small")
class TestAnotherProcess:
    def test_goes_on(self, emulator: Emulator, store: Store, tmp_path: Path) -> None:
        name, uploads = f"{emulator.host}/app:1", tmp_path / "uploads"
        push_and_die(store, name, uploads)
        before = len(emulator.seen("POST .*/uploads/"))
        sent = len(emulator.seen("PATCH "))
        push(store, name, uploads)
        ranges = [request.headers["content-range"] for request in emulator.seen("PATCH ")[sent:]]
        assert ranges[0].startswith(f"{8 << 20}-")
        assert len(emulator.seen("POST .*/uploads/")) - before <= 1  # the config's, where it is not there yet
        assert emulator.content()["app"]["tags"]["1"] == str(IMAGE.manifest.digest)

    @pytest.mark.peer
    def test_with_docker_s_registry(
        self, place: Registry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name, uploads = place.name("app:1"), tmp_path / "uploads"
        push_and_die(store, name, uploads)
        begun = {path.parent.name for path in (place.directory / "data").rglob("_uploads/*/startedat")}
        assert len(begun) == 1
        monkeypatch.delattr(RegistrySink, "_open")  # no other upload is begun: the config is there
        push(store, name, uploads)
        assert not list((place.directory / "data").rglob("_uploads/*/startedat"))
        blob = (
            place.directory / "data/docker/registry/v2/blobs/sha256" / LAYER.digest.encoded[:2] / LAYER.digest.encoded
        )
        assert (blob / "data").stat().st_size == LAYER.size

    def test_starts_again_where_the_registry_has_forgotten(
        self, emulator: Emulator, store: Store, tmp_path: Path
    ) -> None:
        name, uploads = f"{emulator.host}/app:1", tmp_path / "uploads"
        push_and_die(store, name, uploads)
        with emulate(PLAIN) as other:
            [note] = [path for path in uploads.iterdir() if path.stat().st_size]
            note.write_text(note.read_text().replace(emulator.host, other.host))
            name = f"{other.host}/app:1"
            push(store, name, uploads)
            assert other.content()["app"]["tags"]["1"] == str(IMAGE.manifest.digest)


class TestNotes:
    def test_kept_and_forgotten(self, tmp_path: Path) -> None:
        journal = UploadJournal(tmp_path / "uploads")
        with journal.note("r.example/app", DIGEST) as note:
            assert note is not None
            assert note.read() is None
            note.keep(Upload(AT, 100, 5))
        with journal.note("r.example/app", DIGEST) as note:
            assert note is not None
            assert note.read() == Upload(AT, 100, 5)
            note.forget()
            assert note.read() is None
        with journal.note("r.example/other", DIGEST):
            assert len(list((tmp_path / "uploads").iterdir())) == 1

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        journal = UploadJournal(tmp_path / "uploads")
        with journal.note("r.example/app", DIGEST) as first, journal.note("r.example/app", DIGEST) as second:
            assert first is not None
            assert second is None

    def test_too_old(self, tmp_path: Path) -> None:
        now = [1000.0]
        journal = UploadJournal(tmp_path / "uploads", lambda: now[0])
        with journal.note("r.example/app", DIGEST) as note:
            assert note is not None
            note.keep(Upload(AT, 100))
            now[0] += 25 * 3600
            assert note.read() is None

    def test_damaged(self, tmp_path: Path) -> None:
        journal = UploadJournal(tmp_path / "uploads")
        with journal.note("r.example/app", DIGEST) as note:
            assert note is not None
            note.keep(Upload(AT, 100))
            [path] = (tmp_path / "uploads").iterdir()
            path.write_bytes(path.read_bytes()[:30])
            assert note.read() is None

    def test_for_nobody_else_and_without_passwords(self, tmp_path: Path) -> None:
        journal = UploadJournal(tmp_path / "uploads")
        with journal.note("r.example/app", DIGEST) as note:
            assert note is not None
            note.keep(Upload("https://user:secret@r.example/1", 100))
            [path] = (tmp_path / "uploads").iterdir()
            assert path.read_bytes() == b""
            assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    def test_no_place_for_them(self, tmp_path: Path) -> None:
        (tmp_path / "uploads").write_bytes(b"")
        with UploadJournal(tmp_path / "uploads").note("r.example/app", DIGEST) as note:
            assert note is None
        assert os.listdir(tmp_path) == ["uploads"]
