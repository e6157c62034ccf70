"""What an upper directory changes, in docker's letters; and entries packed and merged without a store."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image.errors import Conflict, StorageError
from store.changes import changes, stubs_in
from store.diff import pack_entry
from store.directories import OPEN_DIRECTORY, remove_tree
from store.unpack import unpack
from tests.support.tars import archive, member, reader

STUBS = (b"dev", b"etc/hosts")


@pytest.fixture
def below(tmp_path: Path) -> Iterator[int]:
    """The tree below: a few files, a link, directories whose times are an hour old."""
    root = tmp_path / "below"
    for name in ("etc/kept", "etc/old", "srv/a", "srv/b", "srv/deep/er/file"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "link").symlink_to("etc")
    fd = os.open(root, OPEN_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def opaque(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.setxattr(path, "user.overlay.opaque", b"y")


def made_anew(path: Path) -> None:
    opaque(path)
    write(path / "b")


def same_times(upper: Path, below: int) -> None:
    """As copy-up leaves directories."""
    for path in [found for found in upper.rglob("*") if found.is_dir()]:
        name = str(path.relative_to(upper))
        if os.access(name, os.F_OK, dir_fd=below):
            then = os.stat(name, dir_fd=below).st_mtime_ns
            os.utime(path, ns=(then, then))


def listed(upper: Path, below: int) -> list[str]:
    return [f"{change.kind} /{os.fsdecode(change.path)}" for change in changes(upper, below, stubs=STUBS)]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda u: None, []),
        (lambda u: write(u / "new/file"), ["A /new", "A /new/file"]),
        (lambda u: write(u / "etc/kept"), ["C /etc", "C /etc/kept"]),
        (lambda u: whiteout(u / "etc/old"), ["C /etc", "D /etc/old"]),
        (lambda u: whiteout(u / "srv"), ["D /srv"]),
        (lambda u: whiteout(u / "etc/never"), []),
        (lambda u: (u / "srv").mkdir(mode=0o700), ["C /srv"]),
        (lambda u: (u / "etc").mkdir(), []),
        (lambda u: opaque(u / "srv"), ["C /srv", "D /srv/a", "D /srv/b", "D /srv/deep"]),
        (lambda u: made_anew(u / "srv"), ["C /srv", "D /srv/a", "C /srv/b", "D /srv/deep"]),
        (lambda u: write(u / "link/kept"), ["C /link", "A /link/kept"]),
        (lambda u: write(u / "srv/deep"), ["C /srv", "C /srv/deep"]),
        (lambda u: write(u / "etc/hosts", ""), []),
        (lambda u: write(u / "etc/hosts", "mine"), ["C /etc", "A /etc/hosts"]),
        (lambda u: (u / "dev").mkdir(), []),
        (lambda u: write(u / "dev/null"), ["A /dev", "A /dev/null"]),
    ],
    ids=[
        "nothing", "added", "changed", "deleted", "deleted directory", "whiteout of nothing", "mode",
        "copied up alone", "emptied", "made anew", "directory for a link", "file for a directory",
        "stub of a file", "no stub, as it has content", "stub of a directory", "no stub, as it holds something",
    ],
)  # fmt: skip
def test_changes(make: Callable[[Path], object], expected: list[str], upper: Path, below: int) -> None:
    make(upper)
    same_times(upper, below)
    assert listed(upper, below) == expected


def test_a_directory_made_for_a_stub_is_no_change(upper: Path, tmp_path: Path) -> None:
    write(upper / "etc/hosts", "")
    (tmp_path / "nothing").mkdir()
    below = os.open(tmp_path / "nothing", OPEN_DIRECTORY)
    try:
        assert listed(upper, below) == []
        assert stubs_in(upper, below, STUBS) == {b"etc/hosts"}
    finally:
        os.close(below)


def test_stubs_behind_a_link_are_not_looked_for(upper: Path, below: int, tmp_path: Path) -> None:
    write(tmp_path / "outside/hosts", "")
    (upper / "etc").symlink_to(tmp_path / "outside")
    assert stubs_in(upper, below, STUBS) == frozenset()
    assert listed(upper, below) == ["C /etc"]


def test_a_deep_tree_needs_few_descriptors(upper: Path, below: int) -> None:
    here = os.open(upper, OPEN_DIRECTORY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        down = os.open("d", OPEN_DIRECTORY, dir_fd=here)
        os.close(here)
        here = down
    os.close(here)
    assert len(listed(upper, below)) == 1200
    above = os.open(upper, OPEN_DIRECTORY)
    remove_tree(b"d", dir_fd=above)  # deeper than pytest can
    os.close(above)


# --- entries ---------------------------------------------------------------------------------


def packed(directory: Path, name: bytes, named: bytes) -> bytes:
    pieces: list[bytes] = []
    fd = os.open(directory, OPEN_DIRECTORY)
    try:
        pack_entry(fd, name, pieces.append, named=named, owner=(os.geteuid(), os.getegid()))
    finally:
        os.close(fd)
    return b"".join(pieces)


def tree(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize(
    ("name", "named", "expected"),
    [
        (b"dir", b"other", {"other/file": "1", "other/link": "file"}),
        (b"dir", b".", {"file": "1", "link": "file"}),
        (b".", b"all", {"all/dir/file": "1", "all/dir/link": "file"}),
    ],
    ids=["renamed", "merged", "the directory itself"],
)
def test_pack_entry_of_a_directory(name: bytes, named: bytes, expected: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "from/dir/file", "1")
    (tmp_path / "from/dir/link").symlink_to("file")
    (tmp_path / "to").mkdir()
    unpack(reader(packed(tmp_path / "from", name, named)), tmp_path / "to", whiteouts="keep", like_by_like=True)
    assert tree(tmp_path / "to") == expected


@pytest.mark.parametrize("name", [b"file", b"link"], ids=["file", "link"])
def test_pack_entry_of_one_thing(name: bytes, tmp_path: Path) -> None:
    write(tmp_path / "from/file", "1")
    (tmp_path / "from/link").symlink_to("/somewhere")
    (tmp_path / "to").mkdir()
    unpack(reader(packed(tmp_path / "from", name, b"x")), tmp_path / "to", whiteouts="keep", like_by_like=True)
    assert tree(tmp_path / "to") == {"x": "1" if name == b"file" else "/somewhere"}


def test_pack_entry_of_nothing_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read 'x': no such file"):
        packed(tmp_path, b"absent", b"x")


@pytest.mark.parametrize(
    ("there", "brought", "problem"),
    [
        ("file", "directory", "non-directory 'name' with a directory"),
        ("symlink", "directory", "non-directory 'name' with a directory"),
        ("directory", "file", "directory 'name' with a non-directory"),
        ("directory", "symlink", "directory 'name' with a non-directory"),
    ],
)
def test_like_by_like_replaces_no_other_kind(there: str, brought: str, problem: str, tmp_path: Path) -> None:
    uid, gid = os.geteuid(), os.getegid()
    unpack(reader(archive(member("name", there, link="etc", uid=uid, gid=gid))), tmp_path, whiteouts="keep")
    more = archive(member("name", brought, link="else", uid=uid, gid=gid))
    with pytest.raises(Conflict, match=f"cannot overwrite {problem}"):
        unpack(reader(more), tmp_path, whiteouts="keep", like_by_like=True)
    unpack(reader(more), tmp_path, whiteouts="keep")


def test_like_by_like_leaves_the_target_itself_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "to"
    target.mkdir(mode=0o751)
    fd = os.open(target, OPEN_DIRECTORY)
    more = archive(member("./", "directory", mode=0o700, uid=os.geteuid(), gid=os.getegid()))
    try:
        unpack(reader(more), fd, whiteouts="keep", like_by_like=True)
        assert stat.S_IMODE(target.stat().st_mode) == 0o751
        unpack(reader(more), fd, whiteouts="keep")
        assert stat.S_IMODE(target.stat().st_mode) == 0o700
    finally:
        os.close(fd)
