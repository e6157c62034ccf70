from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.dockerfile.ignore import NOTHING
from builder.steps.place import Destination, Placing
from builder.steps.tree import ROOT, make_directories
from builder.steps.write import copy_content
from builder.tree import Tree
from store.layer_blob import pack_blob
from store.layers import mounted
from store.store import Store


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_content_is_copied_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("wb") as out:
        assert copy_content(source.fileno(), out.fileno(), size)
    assert (tmp_path / "out").read_bytes() == data


def test_holes_stay_holes(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as source:
        source.write(b"start")
        source.seek(4 << 30)
        source.write(b"end")
    size = (tmp_path / "source").stat().st_size
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("wb") as out:
        assert copy_content(source.fileno(), out.fileno(), size)
    copied = (tmp_path / "out").stat()
    assert copied.st_size == size
    assert copied.st_blocks * 512 < 1 << 20
    with (tmp_path / "out").open("rb") as out:
        assert out.read(5) == b"start"
        out.seek(-3, os.SEEK_END)
        assert out.read() == b"end"


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
def test_a_file_that_became_shorter_is_noticed(tmp_path: Path, size: int) -> None:
    (tmp_path / "source").write_bytes(bytes(size - 1))
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("wb") as out:
        assert not copy_content(source.fileno(), out.fileno(), size)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree with what could go wrong on two sides of an overlay: links, modes, times, attributes."""
    path = tmp_path / "project"
    (path / "old" / "new" / "deep").mkdir(parents=True)
    (path / "fresh" / "deep").mkdir(parents=True)
    for number, name in enumerate(["a", "old/b", "old/new/c", "old/new/deep/d", "fresh/e", "fresh/deep/f"]):
        (path / name).write_text(name)
        (path / name).chmod((0o644, 0o755, 0o400, 0o4755, 0o666, 0o000)[number])
        os.utime(path / name, (0, 1000 + number))
    os.link(path / "a", path / "fresh" / "also-a")
    os.link(path / "fresh" / "deep" / "f", path / "z-also-f")
    os.symlink("../a", path / "fresh" / "link")
    os.chown(path / "fresh" / "e", 5, 6)
    os.setxattr(path / "fresh" / "e", "user.word", b"kept")
    os.mkfifo(path / "fresh" / "fifo")
    return path


def placed(tmp_path: Path, project: Path, target: str, times: int, *, directly: bool) -> str:
    """The layer that copying a tree into ``target`` makes, again and again."""
    with Store.open(tmp_path / f"store-{directly}") as store, store.session() as session:
        below = session.workspace(None)
        (below.diff / "srv" / "old").mkdir(parents=True)
        (below.diff / "srv").chmod(0o755)
        (below.diff / "srv" / "old").chmod(0o711)
        (below.diff / "srv" / "old" / "b").write_text("of the base")
        (below.diff / "srv" / "old" / "kept").write_text("of the base")
        workspace = session.workspace(below.directory)
        tree_fd = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
        upper = os.open(workspace.diff, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with mounted(store.layers.overlay((below.directory,), workspace)) as root:
                destination = Destination(root, upper if directly else None)
                make_directories(root, target, ROOT, mtime_s=7, made=destination.made)
                with Placing(Tree(tree_fd), destination, None, None, mtime_s=9) as placing:
                    for _ in range(times):
                        placing.contents("", target, NOTHING)
        finally:
            os.close(tree_fd)
            os.close(upper)
        for directory, _, _ in os.walk(workspace.diff):  # some were there before, and have today's time
            os.utime(directory, (0, 11))
        return str(pack_blob(workspace.diff, lambda _: None, "uncompressed").diff_id)


@pytest.mark.root
@pytest.mark.parametrize("times", [1, 3], ids=["once", "again"])
@pytest.mark.parametrize("target", ["srv", "opt/x"], ids=["into-a-directory-of-the-base", "into-a-new-one"])
def test_a_layer_is_the_same_whichever_side_of_the_overlay_is_written(
    tmp_path: Path, project: Path, target: str, times: int
) -> None:
    through_the_mount = placed(tmp_path, project, target, times, directly=False)
    assert placed(tmp_path, project, target, times, directly=True) == through_the_mount
    assert placed(tmp_path / "once", project, target, 1, directly=True) == through_the_mount


@pytest.mark.root
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, project: Path, umask: int) -> None:
    expected = placed(tmp_path / "usual", project, "srv", 1, directly=True)
    before = os.umask(umask)
    try:
        found = placed(tmp_path / "other", project, "srv", 1, directly=True)
    finally:
        os.umask(before)
    assert found == expected
