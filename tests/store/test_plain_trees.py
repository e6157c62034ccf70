"""Plain directories in the place of overlay: what changed is told as overlay would."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from store.plain_trees import Cover, apply_layer, difference, harvest, snapshot


def _tree(root: Path) -> Path:
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/a").write_text("a")
    (root / "dir/sub/b").write_text("b")
    (root / "link").symlink_to("/outside")
    os.link(root / "dir/a", root / "hard")
    return root


def _rewrite_with_the_same_time(root: Path) -> None:
    status = (root / "dir/sub/b").stat()
    (root / "dir/sub/b").write_text("c")
    os.utime(root / "dir/sub/b", ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace_directory(root: Path) -> None:
    (root / "dir/sub/b").unlink()
    (root / "dir/sub").rename(root / "old")
    (root / "dir/sub").mkdir()
    (root / "old").rmdir()


def _remove_directory(root: Path) -> None:
    (root / "dir/sub/b").unlink()
    (root / "dir/sub").rmdir()


@pytest.mark.parametrize(
    ("change", "written", "deleted"),
    [
        (lambda root: None, (), ()),
        (lambda root: (root / "dir/sub/b").read_text(), (), ()),
        (lambda root: (root / "new").touch(), ("new",), ()),
        (_rewrite_with_the_same_time, ("dir/sub/b",), ()),
        (lambda root: (root / "dir/a").chmod(0o600), ("dir/a", "hard"), ()),
        (lambda root: (root / "hard").unlink(), ("dir/a",), ("hard",)),
        (lambda root: os.setxattr(root / "dir/sub", "user.x", b"1"), ("dir/sub",), ()),
        (lambda root: (root / "dir/sub/b").rename(root / "moved"), ("dir/sub", "moved"), ("dir/sub/b",)),
        (_remove_directory, ("dir",), ("dir/sub",)),
        (_replace_directory, ("dir", "dir/sub"), ()),
    ],
    ids=["nothing", "read", "new", "same-time", "mode", "unlink", "xattr", "rename", "rmdir", "replaced"],
)
def test_difference(
    change: Callable[[Path], object], written: tuple[str, ...], deleted: tuple[str, ...], tmp_path: Path
) -> None:
    root = _tree(tmp_path)
    before = snapshot(str(root))
    change(root)
    found = difference(before, snapshot(str(root)))
    assert (found.written, found.deleted) == (written, deleted)


@pytest.mark.root
def test_a_harvested_layer_makes_the_same_tree_again(tmp_path: Path) -> None:
    for name in ("base", "root", "again", "diff"):
        (tmp_path / name).mkdir()
    base, root, again, diff = (tmp_path / name for name in ("base", "root", "again", "diff"))
    apply_layer(_tree(base), root)
    apply_layer(base, again)
    before = snapshot(str(root))
    _replace_directory(root)
    (root / "dir/sub/new").write_text("n")
    (root / "link").unlink()
    (root / "link").mkdir(mode=0o2750)
    (root / "hard").unlink()
    os.chown(root / "dir/a", 5, 6)
    harvest(root, before, snapshot(str(root)), diff)
    assert stat.S_ISCHR((diff / "hard").lstat().st_mode)
    apply_layer(diff, again)
    assert _look(again) == _look(root)


def _look(root: Path) -> dict[str, tuple[int, ...]]:
    seen = snapshot(str(root))
    return {path: (entry.mode, entry.uid, entry.gid, entry.mtime_ns) for path, entry in seen.items()}


def test_a_cover_follows_links_inside_the_tree_and_brings_all_back(tmp_path: Path) -> None:
    root, aside = tmp_path / "root", tmp_path / "aside"
    (root / "real").mkdir(parents=True)
    aside.mkdir()
    (root / "real/hosts").write_text("mine")
    (root / "etc").symlink_to("/../real")
    with Cover(root, aside, ["etc/hosts", "run/deep/secret"]) as cover:
        assert cover.paths == ["real/hosts", "run/deep/secret"]
        assert not (root / "real/hosts").exists()
        (root / "real/hosts").write_text("ours")
        (root / "run/deep/secret").write_text("s")
    assert (root / "real/hosts").read_text() == "mine"
    assert not (root / "run").exists()
