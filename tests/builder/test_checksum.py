"""builder/checksum.py: what counts for a cache key, and what is remembered."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from builder.checksum import content_checksum, file_digests
from builder.context import Context
from builder.entries import FileKey
from builder.tree import Tree

LATER_NS = 2**62


class Remembering:
    """A cache in memory that counts."""

    def __init__(self) -> None:
        self.known: dict[FileKey, bytes] = {}
        self.asked = 0
        self.hits = 0

    def get_many(self, keys: Sequence[FileKey]) -> Mapping[FileKey, bytes]:
        found = {key: self.known[key] for key in keys if key in self.known}
        self.asked += len(keys)
        self.hits += len(found)
        return found

    def put_many(self, digests: Mapping[FileKey, bytes]) -> None:
        self.known.update(digests)


def checksum(root: Path, path: str = "", *, with_top: bool = True, cache: Remembering | None = None) -> str:
    with Context(root).open() as context:
        tree = Tree(context.root)
        entries = tuple(tree.walk(path))
        digests = file_digests(tree, entries, cache, now_ns=LATER_NS)
        return str(content_checksum(entries, digests, path, with_top=with_top))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "d/sub").mkdir(parents=True)
    (root / "d/f").write_text("content")
    (root / "d/sub/g").write_text("g")
    (root / "d/empty").write_text("")
    (root / "d/l").symlink_to("f")
    return root


def rewrite(root: Path) -> None:
    (root / "d/f").write_text("CONTENT")


def append(root: Path) -> None:
    (root / "d/empty").write_text("x")


def chmod(root: Path) -> None:
    (root / "d/f").chmod(0o600)


def chmod_directory(root: Path) -> None:
    (root / "d/sub").chmod(0o700)


def add(root: Path) -> None:
    (root / "d/new").write_text("")


def add_directory(root: Path) -> None:
    (root / "d/new").mkdir()


def rename(root: Path) -> None:
    (root / "d/f").rename(root / "d/f2")


def move_down(root: Path) -> None:
    (root / "d/f").rename(root / "d/sub/f")


def relink(root: Path) -> None:
    (root / "d/l").unlink()
    (root / "d/l").symlink_to("sub")


def file_for_link(root: Path) -> None:
    (root / "d/l").unlink()
    (root / "d/l").write_text("f")


def xattr(root: Path) -> None:
    os.setxattr(root / "d/f", "user.x", b"1")


def xattr_of_directory(root: Path) -> None:
    os.setxattr(root / "d/sub", "user.x", b"1")


def owner(root: Path) -> None:
    os.chown(root / "d/f", 7, 0)


def group(root: Path) -> None:
    os.chown(root / "d/f", 0, 7)


@pytest.mark.root
@pytest.mark.parametrize(
    "change",
    [rewrite, append, chmod, chmod_directory, add, add_directory, rename, move_down, relink, file_for_link, xattr,
     xattr_of_directory, owner, group],
)  # fmt: skip
def test_what_counts(root: Path, change: Callable[[Path], None]) -> None:
    cache = Remembering()
    before = checksum(root, cache=cache)
    change(root)
    assert checksum(root, cache=cache) != before


def touch(root: Path) -> None:
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)


def hardlinked(root: Path) -> None:
    """The same content under one inode instead of two."""
    (root / "d/sub/g").unlink()
    (root / "d/copy").write_text("g")
    os.link(root / "d/copy", root / "d/sub/g")
    (root / "d/copy").unlink()


@pytest.mark.parametrize("change", [touch, hardlinked])
def test_what_does_not_count(root: Path, change: Callable[[Path], None]) -> None:
    cache = Remembering()
    before = checksum(root, cache=cache)
    change(root)
    assert checksum(root, cache=cache) == before


def test_the_way_to_a_tree_does_not_count(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (root / "d").rename(other / "e")
    (root / "x").mkdir()
    (other / "e").rename(root / "x/e")
    before = checksum(root, "x/e")
    (root / "x/e").rename(root / "d")
    assert checksum(root, "d") == before


def test_the_top_directory_counts_only_on_demand(root: Path) -> None:
    with_top, without = checksum(root, "d"), checksum(root, "d", with_top=False)
    (root / "d").chmod(0o711)
    assert checksum(root, "d") != with_top
    assert checksum(root, "d", with_top=False) == without


def test_digests_are_sha256_of_the_content(root: Path) -> None:
    with Context(root).open() as tree:
        entries = {entry.path: entry for entry in tree.walk()}
        digests = file_digests(tree, entries.values(), now_ns=LATER_NS)
    assert digests[entries["d/f"].key] == hashlib.sha256(b"content").digest()
    assert digests[entries["d/empty"].key] == hashlib.sha256(b"").digest()


def test_a_second_look_reads_only_what_changed(root: Path) -> None:
    cache = Remembering()
    first = checksum(root, cache=cache)
    assert (cache.asked, cache.hits) == (3, 0)
    assert checksum(root, cache=cache) == first
    assert (cache.asked, cache.hits) == (6, 3)
    rewrite(root)
    checksum(root, cache=cache)
    assert (cache.asked, cache.hits) == (9, 5)


def test_a_file_changed_just_now_is_not_remembered(root: Path) -> None:
    cache = Remembering()
    with Context(root).open() as tree:
        entries = tuple(tree.walk())
        newest = max(entry.key.ctime_ns for entry in entries)
        file_digests(tree, entries, cache, now_ns=newest + 1_000_000)
        assert cache.known == {}
        file_digests(tree, entries, cache, now_ns=newest + 3_000_000_000)
        assert len(cache.known) == 3


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_many_files_and_threads(tmp_path: Path, threads: int) -> None:
    for number in range(700):
        (tmp_path / f"{number}").write_bytes(b"%d" % number * (number % 7 * 1000))
    with Context(tmp_path).open() as tree:
        entries = tuple(tree.walk())
        digests = file_digests(tree, entries, now_ns=0, threads=threads)
    for entry in entries[1:]:
        assert digests[entry.key] == hashlib.sha256((tmp_path / entry.path).read_bytes()).digest()


@pytest.mark.parametrize("count", [1, 600])
def test_a_file_that_vanishes_is_an_error_not_a_hang(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}").write_text("x")
    with Context(tmp_path).open() as tree:
        entries = tuple(tree.walk())
        (tmp_path / "0").unlink()
        with pytest.raises(FileNotFoundError):
            file_digests(tree, entries, now_ns=0)


def test_a_link_put_in_place_of_a_directory_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/g").write_text("secret")
    with Context(root).open() as tree:
        entries = tuple(tree.walk())
        (root / "d/sub").rename(root / "d/away")
        (root / "d/sub").symlink_to(tmp_path / "outside")
        with pytest.raises(OSError, match="sub"):
            file_digests(tree, entries, now_ns=0)
