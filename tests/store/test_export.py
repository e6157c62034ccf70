"""Root filesystems leave the store as a tar and as a directory; disk usage is what du says."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.errors import StorageError
from store.disk_usage import disk_usage
from store.export import export_directory, export_tar
from store.store import Session, Store

pytestmark = pytest.mark.root


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Store.open(tmp_path / "root") as store, store.session() as session:
        yield session


@pytest.fixture
def directories(session: Session) -> tuple[str, ...]:
    """Two layers: a tree, and a whiteout with a change over it."""
    lower = session.workspace(None)
    (lower.diff / "d").mkdir(0o750)
    (lower.diff / "d" / "file").write_text("content")
    (lower.diff / "d" / "gone").write_text("")
    os.link(lower.diff / "d" / "file", lower.diff / "d" / "same")
    os.chown(lower.diff / "d" / "file", 5, 6)
    os.symlink("/etc", lower.diff / "out")
    os.utime(lower.diff / "d" / "file", (100, 100))
    os.utime(lower.diff / "d", (7_000, 7_000))
    upper = session.workspace(lower.directory)
    (upper.diff / "d").mkdir(0o755)
    os.mknod(upper.diff / "d" / "gone", 0o20000, os.makedev(0, 0))
    return (upper.directory, lower.directory)


def test_a_tar_shows_the_merged_tree(session: Session, directories: tuple[str, ...]) -> None:
    pieces: list[bytes] = []
    export_tar(session.store.layers, directories, pieces.append, clamp_s=5_000)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        members = {member.name: member for member in archive}
    assert sorted(members) == ["d", "d/file", "d/same", "out"]
    assert (members["d/file"].uid, members["d/file"].mtime, members["d"].mtime <= 5_000) == (5, 100, True)


def test_a_directory_gets_the_tree_beside_what_it_had(
    session: Session, directories: tuple[str, ...], tmp_path: Path
) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    (target / "kept").write_text("")
    (target / "d").symlink_to(elsewhere)
    export_directory(session.store.layers, directories, target, owner=(0, 0))
    assert sorted(os.listdir(target)) == ["d", "kept", "out"]
    assert os.listdir(elsewhere) == []
    assert (target / "d" / "file").stat().st_nlink == 2
    assert (target / "d" / "file").stat().st_uid == 0
    assert not (target / "d" / "gone").exists()


def test_a_target_that_refuses_ends_both_sides(session: Session, directories: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        export_directory(session.store.layers, directories, tmp_path / "file")


def test_a_writer_that_fails_ends_the_tar(session: Session, directories: tuple[str, ...]) -> None:
    def refuse(_piece: bytes) -> None:
        raise StorageError("no space")

    with pytest.raises(StorageError, match="no space"):
        export_tar(session.store.layers, directories, refuse)


def test_disk_usage_is_what_du_says(tmp_path: Path) -> None:
    for number in range(50):
        directory = tmp_path / f"d{number % 7}" / "deep"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / str(number)).write_bytes(b"x" * number * 300)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 30)
    os.link(tmp_path / "d1" / "deep" / "1", tmp_path / "again")
    os.symlink("/", tmp_path / "link")
    said = subprocess.run(["du", "-s", "--block-size=1", tmp_path], check=True, capture_output=True, text=True).stdout
    assert disk_usage(tmp_path) == int(said.split()[0])
    assert disk_usage(tmp_path / "absent") == 0
