from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import BlobNotFound, DigestMismatch, SizeMismatch, StorageError
from store.content import ContentStore, replace_file
from store.store import Session, Store

DATA = b"layer" * 1000
WANTED = Descriptor.of(DATA, "application/octet-stream")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Store.open(tmp_path / "root") as store, store.session() as session:
        yield session


def unfinished(content: ContentStore) -> list[str]:
    return os.listdir(content.ingest_path(""))


def test_a_blob_is_visible_only_after_commit(session: Session) -> None:
    with session.writer() as writer:
        writer.write(DATA)
        assert not session.content.has(WANTED.digest)
        assert writer.commit(WANTED) == WANTED.digest
    assert session.content.read(WANTED) == DATA
    assert unfinished(session.content) == []


def test_a_blob_that_is_not_committed_leaves_nothing(session: Session) -> None:
    with pytest.raises(KeyError), session.writer() as writer:
        writer.write(DATA)
        raise KeyError
    assert unfinished(session.content) == []
    assert list(session.content.digests()) == []


@pytest.mark.parametrize(
    ("promised", "error"),
    [
        (replace(WANTED, size=WANTED.size + 1), SizeMismatch),
        (replace(WANTED, digest=Digest.of(b"")), DigestMismatch),
        (replace(WANTED, digest=Digest.of(b"", "sha512")), DigestMismatch),
    ],
    ids=["size", "sha256", "sha512"],
)
def test_bytes_that_are_not_what_was_promised_are_refused(
    session: Session, promised: Descriptor, error: type[Exception]
) -> None:
    with pytest.raises(error), session.writer() as writer:
        writer.write(DATA)
        writer.commit(promised)
    assert not session.content.has(promised.digest)
    assert unfinished(session.content) == []


def test_sha512_blobs(session: Session) -> None:
    wanted = replace(WANTED, digest=Digest.of(DATA, "sha512"))
    with session.writer() as writer:
        writer.write(DATA)
        writer.commit(wanted)
    assert session.content.read(wanted) == DATA
    assert wanted.digest in set(session.content.digests())


def test_reading_verifies_to_the_end(session: Session) -> None:
    session.put(DATA, "application/octet-stream")
    path = session.content.path(WANTED.digest)
    path.write_bytes(DATA[:-1] + b"X")
    with pytest.raises(DigestMismatch):
        session.content.read(WANTED)
    path.write_bytes(DATA[:-1])
    with pytest.raises(SizeMismatch):
        session.content.read(WANTED)
    path.write_bytes(DATA + b"X")
    with pytest.raises(SizeMismatch):
        session.content.read(WANTED)


def test_an_absent_blob(session: Session) -> None:
    with pytest.raises(BlobNotFound):
        session.content.read(WANTED)
    with pytest.raises(BlobNotFound):
        session.content.size(WANTED.digest)


def test_two_writers_of_one_blob(session: Session) -> None:
    with session.writer() as first, session.writer() as second:
        first.write(DATA)
        second.write(DATA)
        assert first.commit() == second.commit() == WANTED.digest
    assert session.content.read(WANTED) == DATA


@pytest.mark.root
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", root], check=True)
    try:
        with Store.open(root) as store, store.session() as session:
            with pytest.raises(StorageError, match="no space left on device: free space"), session.writer() as writer:
                for _ in range(5):
                    writer.write(bytes(1 << 20))
            assert unfinished(session.content) == []
            assert session.put(b"still works", "text/plain").size == 11
    finally:
        subprocess.run(["umount", root], check=True)


def test_replace_file_keeps_the_old_bytes_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.raises(StorageError):
        replace_file(tmp_path / "absent" / "file", b"new")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_threads_may_replace_the_same_file_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            replace_file(tmp_path / "file", bytes([number]) * 10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(set((tmp_path / "file").read_bytes())) == 1
    assert os.listdir(tmp_path) == ["file"]
