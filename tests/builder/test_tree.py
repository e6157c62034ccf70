"""builder/tree.py: sources, symlinks, walks, on real directories."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.context import Context
from builder.dockerfile.ignore import NOTHING, IgnoreRules
from builder.entries import Entry, EntryKind
from builder.tree import Tree
from image.errors import InvalidInput, SourceNotFound


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A context with the awkward cases, and a secret beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    root = tmp_path / "context"
    for name in ("a/one.txt", "a/two.md", "a/sub/three.txt", "b/one.txt", "top.txt", "other.md", "b/[x]", "b/*"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty").mkdir()
    (root / "link").symlink_to("a")
    (root / "a/up").symlink_to("../b/one.txt")
    (root / "absolute").symlink_to("/a/sub")
    (root / "escape").symlink_to("../outside/secret")
    (root / "escape-dir").symlink_to("../../../../outside")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    return root


@contextmanager
def tree_of(root: Path, *patterns: str) -> Iterator[Tree]:
    with Context(root, IgnoreRules.of(patterns)).open() as tree:
        yield tree


def found(tree: Tree, pattern: str) -> list[str]:
    return [source.path for source in tree.sources(pattern)]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("top.txt", ["top.txt"]),
        ("./a/../top.txt", ["top.txt"]),
        ("/top.txt", ["top.txt"]),
        ("../../top.txt", ["top.txt"]),
        ("a/", ["a"]),
        (".", [""]),
        ("", [""]),
        ("link", ["a"]),
        ("link/one.txt", ["a/one.txt"]),
        ("a/up", ["b/one.txt"]),
        ("link/up", ["b/one.txt"]),
        ("absolute", ["a/sub"]),
        ("absolute/three.txt", ["a/sub/three.txt"]),
        ("*.txt", ["top.txt"]),
        ("*/one.txt", ["a/one.txt", "b/one.txt"]),
        ("[ab]/o*", ["a/one.txt", "b/one.txt"]),
        ("link/*.txt", ["a/one.txt"]),
        ("li*k", ["a"]),
        ("l*k/one.txt", []),
        ("a/*", ["a/one.txt", "a/sub", "a/two.md", "b/one.txt"]),
        ("**/three.txt", []),
        ("nothing*", []),
        ("nothing/*", []),
        ("top.txt/*", []),
        ("b/[[]x]", ["b/[x]"]),
        (r"b/\*", ["b/*"]),
        ("empty/*", []),
    ],
)
def test_sources(root: Path, pattern: str, paths: list[str]) -> None:
    with tree_of(root) as tree:
        assert found(tree, pattern) == paths


def test_a_source_keeps_the_name_it_was_found_under(root: Path) -> None:
    with tree_of(root) as tree:
        (source,) = tree.sources("a/up")
        assert (source.path, source.name, source.kind) == ("b/one.txt", "up", EntryKind.FILE)


@pytest.mark.parametrize("pattern", ["missing", "a/missing/x", "top.txt/x", "dangling", "b/[y]\\", "x" * 300])
def test_a_missing_source(root: Path, pattern: str) -> None:
    with tree_of(root) as tree, pytest.raises((SourceNotFound, InvalidInput)):
        tree.sources(pattern)


def test_the_message_is_dockers(root: Path) -> None:
    with tree_of(root) as tree, pytest.raises(SourceNotFound) as caught:
        tree.sources("../no/such")
    assert str(caught.value) == '"/no/such": not found'
    assert not caught.value.excluded


@pytest.mark.parametrize("pattern", ["escape", "escape-dir", "escape-dir/secret", "escape-dir/../outside/secret"])
def test_links_out_of_the_root_lead_to_nothing(root: Path, pattern: str) -> None:
    with tree_of(root) as tree, pytest.raises(SourceNotFound):
        tree.sources(pattern)


def test_a_link_upwards_stays_in_the_root(root: Path) -> None:
    (root / "outside").mkdir()
    (root / "outside/secret").write_text("inside")
    with tree_of(root) as tree:
        assert found(tree, "escape") == ["outside/secret"]


def test_a_loop_of_links_is_an_error(root: Path) -> None:
    with tree_of(root) as tree, pytest.raises(InvalidInput, match="too many levels of symbolic links"):
        tree.sources("loop/x")


@pytest.mark.parametrize("pattern", ["dangling", "dang*"])
def test_a_dangling_link_is_missing_under_its_targets_name(root: Path, pattern: str) -> None:
    with tree_of(root) as tree, pytest.raises(SourceNotFound) as caught:
        tree.sources(pattern)
    assert caught.value.path == "/nowhere"


def test_excluded_sources(root: Path) -> None:
    with tree_of(root, "a", "top.txt", "!a/sub") as tree:
        assert found(tree, "a") == ["a"]
        assert found(tree, "a/s*") == ["a/sub"]
        assert found(tree, "a/o*") == []
        assert found(tree, "*.txt") == []
        for pattern in ("top.txt", "a/one.txt", "link/one.txt"):
            with pytest.raises(SourceNotFound) as caught:
                tree.sources(pattern)
            assert caught.value.excluded
    with tree_of(root, "link") as tree, pytest.raises(SourceNotFound):
        tree.sources("link/one.txt")
    with tree_of(root, "empty", "!empty/x") as tree, pytest.raises(SourceNotFound):
        tree.sources("empty")


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("a/sub/three.txt", [("a/sub/three.txt", "a/sub/three.txt")]),
        ("a/./sub/three.txt", [("a/sub/three.txt", "sub/three.txt")]),
        ("./a/sub", [("a/sub", "a/sub")]),
        ("**/*.txt", [("a/one.txt",) * 2, ("a/sub/three.txt",) * 2, ("b/one.txt",) * 2, ("top.txt",) * 2]),
        ("a/./**/*.txt", [("a/one.txt", "one.txt"), ("a/sub/three.txt", "sub/three.txt")]),
        ("*/sub", [("a/sub", "a/sub")]),
        ("no/**/x", []),
    ],
)
def test_sources_with_parents(root: Path, pattern: str, kept: list[tuple[str, str]]) -> None:
    with tree_of(root) as tree:
        assert [(source.path, source.kept) for source in tree.sources_with_parents(pattern)] == kept


def test_parents_of_a_missing_plain_path(root: Path) -> None:
    with tree_of(root) as tree, pytest.raises(SourceNotFound):
        tree.sources_with_parents("a/nope")


def walked(tree: Tree, path: str = "", excludes: IgnoreRules = NOTHING) -> list[str]:
    return [entry.path for entry in tree.walk(path, excludes)]


def test_a_walk_is_sorted_parents_first_and_follows_no_links(root: Path) -> None:
    with tree_of(root) as tree:
        assert walked(tree, "a") == ["a", "a/one.txt", "a/sub", "a/sub/three.txt", "a/two.md", "a/up"]
        everything = walked(tree)
        assert everything[0] == ""
        assert len(everything) == len(set(everything)) == 1 + sum(1 for _ in root.rglob("*"))
        assert walked(tree, "top.txt") == ["top.txt"]


def test_a_walk_leaves_out_what_is_excluded(root: Path) -> None:
    with tree_of(root, "**", "!**/*.txt") as tree:
        assert walked(tree) == ["", "a", "a/one.txt", "a/sub", "a/sub/three.txt", "b", "b/one.txt", "top.txt"]
    with tree_of(root, "*", "!a/sub/nothing") as tree:
        assert walked(tree) == [""]


def test_an_excluded_directory_is_not_even_opened(root: Path) -> None:
    opened: list[str] = []

    class Watching(Tree):
        def _list(self, descent, directory, excludes, relative):  # type: ignore[no-untyped-def]
            opened.append(directory)
            return super()._list(descent, directory, excludes, relative)

    with tree_of(root, "a", "!b/one.txt") as tree:
        watching = Watching(tree.root, tree.rules)
        list(watching.walk())
    assert opened == ["", "b", "empty"]


def test_excludes_of_a_copy_are_relative_to_its_source(root: Path) -> None:
    with tree_of(root) as tree:
        assert walked(tree, "a", IgnoreRules.of(["*.md", "sub", "up"])) == ["a", "a/one.txt"]
        assert walked(tree, "a", IgnoreRules.of(["*", "!sub/three.txt"])) == ["a", "a/sub", "a/sub/three.txt"]
        assert walked(tree, "top.txt", IgnoreRules.of(["*.txt"])) == []
        assert walked(tree, "top.txt", IgnoreRules.of(["*.md"])) == ["top.txt"]


def test_entries_say_what_a_file_is(root: Path) -> None:
    (root / "top.txt").chmod(0o4751)
    os.link(root / "top.txt", root / "hard")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        with tree_of(root) as tree:
            entries = {entry.path: entry for entry in tree.walk()}
    top = entries["top.txt"]
    assert (top.kind, top.mode, top.size) == (EntryKind.FILE, 0o4751, 7)
    assert top.hardlinks == entries["hard"].hardlinks != None  # noqa: E711
    assert entries["other.md"].hardlinks is None
    assert entries["a"].hardlinks is None
    assert (entries["link"].kind, entries["link"].link) == (EntryKind.SYMLINK, "a")
    assert entries["pipe"].kind is EntryKind.FIFO
    assert (entries["s"].kind, entries["s"].socket, entries["s"].size) == (EntryKind.FILE, True, 0)


@pytest.mark.root
def test_a_context_is_owned_by_root_and_a_stage_is_not(root: Path) -> None:
    os.chown(root / "top.txt", 1234, 5678)
    os.mknod(root / "null", 0o666 | 0o020000, os.makedev(1, 3))

    def owner(entry: Entry | None) -> tuple[int, int]:
        assert entry is not None
        return entry.uid, entry.gid

    with tree_of(root) as tree:
        assert owner(tree.entry("top.txt")) == (0, 0)
        stage = Tree(tree.root)
        assert owner(stage.entry("top.txt")) == (1234, 5678)
        device = stage.entry("null")
        assert device is not None
        assert (device.kind, device.rdev) == (EntryKind.CHARACTER, os.makedev(1, 3))


def test_a_descent_reuses_directories_and_closes_them(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with tree_of(root) as tree:
        with tree.descent() as descent:
            for path in ("a/one.txt", "a/sub/three.txt", "b/one.txt", "top.txt"):
                fd = descent.open(path)
                assert os.read(fd, 100) == path.encode()
                os.close(fd)
            with pytest.raises(OSError, match="link"):
                descent.open("escape")
            with pytest.raises(OSError):  # noqa: PT011 - the kernel says ENOTDIR or ELOOP
                descent.open("link/one.txt")
        walk = tree.walk()
        next(walk)
        next(walk)
        walk.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_may_be_deep_but_not_without_end(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for depth in range(420):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
            if depth == 390:
                (tmp_path / "/".join(["d"] * 391) / "file").write_text("x")
    finally:
        os.close(fd)
    with tree_of(tmp_path, "/".join(["d"] * 392)) as tree:
        assert walked(tree)[-1].endswith("d/file")
    with tree_of(tmp_path) as tree, pytest.raises(InvalidInput, match="nest deeper than"):
        walked(tree)


def test_names_that_are_not_utf8(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9")).write_text("x")
    with tree_of(root) as tree:
        assert [os.fsencode(path) for path in found(tree, "caf?")] == [b"caf\xe9"]
