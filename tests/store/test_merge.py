"""Layers as one tar: against a second opinion on random layers, and by the rules one by one."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from image.errors import InvalidArchive
from store.merge import OpenLayer, merged
from tests.support.image_tree import ROOT, Inode, apply_layer
from tests.support.tars import archive, member


def opener(layer: bytes) -> OpenLayer:
    def opened() -> AbstractContextManager[Iterator[bytes]]:
        return nullcontext(iter([layer[start : start + 700] for start in range(0, len(layer), 700)]))

    return opened


def merge(*layers: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in merged([opener(layer) for layer in layers]))


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def tree(*layers: bytes) -> dict[str, Inode]:
    found = dict(ROOT)
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            found = apply_layer(found, tar)
    return found


def random_layer(choose: random.Random) -> bytes:
    """Entries under few names, each once; files stay files, as a layer can't say two things of a name."""
    members: dict[str, bytes] = {}
    files: list[str] = []
    for _ in range(choose.randrange(1, 9)):
        parent = choose.choice(["", "a/", "b/", "a/c/"])
        name = parent + choose.choice(["f", "g", "s", "a", "c", ".wh.f", ".wh.a", ".wh.c", ".wh..wh..opq"])
        leaf = name.rpartition("/")[2]
        if name in members:
            continue
        if leaf in {"a", "c"}:
            members[name] = member(name, "directory", mode=choose.choice([0o700, 0o755]), mtime=choose.randrange(99))
        elif leaf == "s":
            members[name] = member(name, "symlink", link=choose.choice(["f", "/etc", "../.."]), mode=0o777)
        elif leaf == "g" and files:
            members[name] = member(name, "link", link=choose.choice(files))
        else:
            members[name] = member(name, content=choose.randbytes(choose.randrange(2000)), uid=choose.randrange(9))
            files += [name] if not leaf.startswith(".wh.") and leaf != "g" else []
    return archive(*members.values())


@pytest.mark.parametrize("seed", range(4))
def test_the_same_tree_as_layers_laid_one_on_the_other(seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(40):
        layers = [random_layer(choose) for _ in range(choose.randrange(1, 5))]
        assert tree(merge(*layers)) == tree(*layers)


def test_a_name_is_there_once() -> None:
    low = archive(member("d", "directory"), member("d/f", content=b"old"), member("d/g", content=b"g"))
    high = archive(member("d", "directory"), member("d/f", content=b"new"))
    assert names(merge(low, high)) == ["d", "d/f", "d/g"]


def test_a_link_gets_the_file_that_is_hidden() -> None:
    """Two links to a file that the layer above replaces stay links to one file, with its old content."""
    low = archive(
        member("f", content=b"old" * 1000, mode=0o4755),
        member("g", "link", link="f"),
        member("h", "link", link="./g"),
        member("last", content=b"x"),
    )
    found = merge(low, archive(member("f", content=b"new")))
    with tarfile.open(fileobj=io.BytesIO(found)) as tar:
        first, link = tar.getmember("g"), tar.getmember("h")
        assert (first.size, first.mode, link.linkname) == (3000, 0o4755, "g")
    assert names(found) == ["f", "last", "g", "h"]


def test_a_layer_that_is_no_directory_cuts_off_what_is_below() -> None:
    """A link above it is gone for good, and so is the directory that it took the place of."""
    low = archive(member("a", "directory"), member("a/below", content=b"1"))
    middle = archive(member("a", "symlink", link="/etc"))
    assert names(merge(low, middle, archive(member("a/new", content=b"2")))) == ["a/new", "a"]


def test_links_are_followed_in_their_own_layer() -> None:
    layer = archive(
        member("usr", "directory"), member("usr/lib", "directory"), member("lib", "symlink", link="usr/lib"),
        member("lib/x", content=b"x"), member("up", "symlink", link="../../../usr"), member("up/y", content=b"y"),
    )  # fmt: skip
    assert names(merge(layer)) == ["usr", "usr/lib", "lib", "usr/lib/x", "up", "usr/y"]


def test_sparse_files_are_whole() -> None:
    content = b"a" * 512
    entry = member("s", content=content, pax={"GNU.sparse.map": "1024,512", "GNU.sparse.size": "4096"})
    with tarfile.open(fileobj=io.BytesIO(merge(archive(entry)))) as tar:
        found = tar.extractfile("s")
        assert found is not None
        assert found.read() == bytes(1024) + content + bytes(2560)


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (archive(member("../x", content=b"x")), "leaves the root"),
        (archive(member("f", content=b"x"), member("f/x", content=b"x")), "above it is no directory"),
        (archive(member("f", "symlink", link="/etc/passwd"), member("f", content=b"x")), "something else"),
        (archive(member("d/x", content=b"x"), member("d", "symlink", link="/etc")), "something else"),
        (archive(member("g", "link", link="absent")), "no file of the layer"),
        (archive(member("g", "link", link="../../etc/passwd")), "leaves the root"),
        (archive(member("a", "symlink", link="b"), member("b", "symlink", link="a"), member("a/x")), "too many links"),
        (archive(member("d/.wh...", content=b"")), "whiteout of no valid name"),
        (archive(member("s", pax={"GNU.sparse.map": "", "GNU.sparse.size": str(1 << 50)})), "more than"),
        (archive(member("f", content=b"x" * 600))[:700], "truncated"),
    ],
)
def test_hostile_layers_are_refused(layer: bytes, problem: str) -> None:
    with pytest.raises(InvalidArchive, match=problem):
        for _ in merged([opener(layer)]):
            pass
