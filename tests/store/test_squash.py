"""Layers merged into one show the same over their base, on real overlay mounts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from image.digest import ChainID, DiffID
from store.layers import mounted
from store.squash import merge_layers
from store.store import Session, Store

pytestmark = pytest.mark.root

Change = Callable[[int], None]


def write(root: int, path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
    os.write(fd, text.encode())
    os.close(fd)


def make(root: int, path: str) -> None:
    os.mkdir(path, dir_fd=root)


def remove_tree(root: int, path: str) -> None:
    for name in os.listdir(f"/proc/self/fd/{root}/{path}"):
        os.unlink(f"{path}/{name}", dir_fd=root)
    os.rmdir(path, dir_fd=root)


def base(root: int) -> None:
    make(root, "etc")
    make(root, "data")
    for name in ("etc/kept", "etc/removed", "etc/changed", "data/a", "data/b"):
        write(root, name, "base")


def replaced_directory(root: int) -> None:
    remove_tree(root, "data")
    make(root, "data")
    write(root, "data/new", "new")


def tree(root: int, prefix: str = "") -> dict[str, tuple[int, int, str]]:
    """Type and mode, owner, and content or target of everything."""
    found: dict[str, tuple[int, int, str]] = {}
    directory = f"/proc/self/fd/{root}/{prefix}"
    for name in sorted(os.listdir(directory)):
        path = prefix + name
        status = os.lstat(directory + name)
        content = ""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(directory + name)
        elif stat.S_ISREG(status.st_mode):
            content = Path(directory + name).read_text()
        found[path] = (status.st_mode, status.st_uid, content)
        if stat.S_ISDIR(status.st_mode):
            found |= tree(root, path + "/")
    return found


class Layers:
    """A store with a stack of layers, each made through a real overlay mount."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.store = session.store
        self.directories: tuple[str, ...] = ()
        self.chain: ChainID | None = None

    def add(self, change: Change) -> None:
        workspace = self.session.workspace(self.directories[0] if self.directories else None)
        with mounted(self.store.layers.overlay(self.directories, workspace)) as root:
            change(root)
        self.session.commit_layer(workspace, self.chain, DiffID.of(workspace.directory.encode()), size=0, entries=0)
        self.chain = (
            self.chain.then(DiffID.of(workspace.directory.encode()))
            if self.chain
            else ChainID(str(DiffID.of(workspace.directory.encode())))
        )
        self.directories = (workspace.directory, *self.directories)

    def diff(self, place: int) -> Path:
        return self.store.layers.base / self.directories[place] / "diff"

    @contextmanager
    def merged(self, directories: tuple[str, ...]) -> Iterator[int]:
        with mounted(self.store.layers.overlay(directories)) as root:
            yield root


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    with Store.open(tmp_path / "root") as store, store.session() as session:
        yield Layers(session)


def in_turn(*changes: Change) -> list[Change]:
    return list(changes)


CASES: dict[str, list[Change]] = {
    "new files": in_turn(lambda root: write(root, "one", "1"), lambda root: write(root, "two", "2")),
    "a changed file": in_turn(
        lambda root: write(root, "etc/changed", "1"), lambda root: write(root, "etc/changed", "2")
    ),
    "a removed file of the base": in_turn(
        lambda root: write(root, "x", ""), lambda root: os.unlink("etc/removed", dir_fd=root)
    ),
    "made and removed": in_turn(lambda root: write(root, "gone", ""), lambda root: os.unlink("gone", dir_fd=root)),
    "removed and made": in_turn(
        lambda root: os.unlink("etc/removed", dir_fd=root), lambda root: write(root, "etc/removed", "back")
    ),
    "a replaced directory": in_turn(lambda root: write(root, "data/c", "c"), replaced_directory),
    "added to a replaced directory": in_turn(replaced_directory, lambda root: write(root, "data/more", "more")),
    "a removed directory": in_turn(lambda root: write(root, "x", ""), lambda root: remove_tree(root, "data")),
    "a directory where a file was": in_turn(
        lambda root: os.unlink("etc/kept", dir_fd=root), lambda root: make(root, "etc/kept")
    ),
    "a link where a directory was": in_turn(
        lambda root: remove_tree(root, "data"), lambda root: os.symlink("/etc", "data", dir_fd=root)
    ),
    "modes and owners": in_turn(
        lambda root: os.chmod("etc", 0o710, dir_fd=root), lambda root: os.chown("etc/kept", 5, 6, dir_fd=root)
    ),
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_the_same_is_seen_over_the_base(layers: Layers, changes: list[Change]) -> None:
    layers.add(base)
    below = layers.directories
    for change in changes:
        layers.add(change)
    workspace = layers.session.workspace(below[0])
    with layers.merged(below) as root:
        merge_layers([layers.diff(place) for place in range(len(changes))], root, workspace.diff)
    with ExitStack() as stack:
        expected = tree(stack.enter_context(layers.merged(layers.directories)))
        found = tree(stack.enter_context(layers.merged((workspace.directory, *below))))
    assert found == expected


def test_what_came_and_went_leaves_nothing(layers: Layers) -> None:
    layers.add(base)
    below = layers.directories
    for change in CASES["made and removed"]:
        layers.add(change)
    workspace = layers.session.workspace(below[0])
    with layers.merged(below) as root:
        merge_layers([layers.diff(0), layers.diff(1)], root, workspace.diff)
    assert os.listdir(workspace.diff) == []


def test_hard_links_stay_links(layers: Layers) -> None:
    layers.add(lambda root: write(root, "one", "1"))
    layers.add(lambda root: os.link("one", "two", src_dir_fd=root, dst_dir_fd=root))
    workspace = layers.session.workspace(None)
    merge_layers([layers.diff(0), layers.diff(1)], None, workspace.diff)
    assert os.path.samefile(workspace.diff / "one", workspace.diff / "two")


def test_either_mark_of_an_opaque_directory_counts(tmp_path: Path) -> None:
    """That of root's overlay mounts, and that of a user's; the result has the one that is read here."""
    for name, mark in (("trusted", "trusted.overlay.opaque"), ("user", "user.overlay.opaque")):
        upper, lower, base, target = (tmp_path / name / part for part in ("upper", "lower", "base", "target"))
        for directory in (upper, lower, base):
            (directory / "d").mkdir(parents=True)
        target.mkdir()
        (upper / "d/new").touch()
        (lower / "d/old").touch()
        (base / "d/oldest").touch()
        os.setxattr(upper / "d", mark, b"y")
        fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            merge_layers([upper, lower], fd, target)
        finally:
            os.close(fd)
        assert os.listdir(target / "d") == ["new"]
        assert os.getxattr(target / "d", "trusted.overlay.opaque") == b"y"
