"""Where ``cp`` puts what, and that nothing in a container leads out of it: on directories, without a container."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from image.errors import Conflict, InvalidInput, NotFound, TierceError
from runner.containers.copying import ContainerTree, HostTree, Place, copy, receive, send
from store.directories import OPEN_DIRECTORY
from tests.support.tars import archive, member, reader

OURS = (os.geteuid(), os.getegid())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A file, a directory, links, and one of each kind to copy to."""
    return _tree(tmp_path / "here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The same as a container's root, beside a secret that is none of its business."""
    (tmp_path / "secret").write_text("secret")
    return _tree(tmp_path / "root")


def _tree(top: Path) -> Path:
    (top / "dir/sub").mkdir(parents=True)
    (top / "file").write_text("F")
    (top / "dir/one").write_text("1")
    (top / "dir/link").symlink_to("one")
    (top / "link").symlink_to("file")
    (top / "dirlink").symlink_to("dir")
    (top / "there").mkdir()
    (top / "used").write_text("old")
    return top


@pytest.fixture
def trees(root: Path) -> Iterator[tuple[HostTree, ContainerTree]]:
    with ExitStack() as held:
        fd = os.open(root, OPEN_DIRECTORY)
        held.callback(os.close, fd)
        yield HostTree(held), ContainerTree(held, fd, "web")


def below(top: Path) -> dict[str, str]:
    """Names with what they are: content, ``-> target``, or ``/``."""
    found = {}
    for path in sorted(top.rglob("*")):
        kind = f"-> {os.readlink(path)}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
        found[str(path.relative_to(top))] = kind
    return found


DIRECTORY = {"link": "-> one", "one": "1", "sub": "/"}


def under(name: str) -> dict[str, str]:
    return {name: "/", **{f"{name}/{path}": kind for path, kind in DIRECTORY.items()}}


RULES = [
    ("file", "there", {"file": "F"}),
    ("file", "there/", {"file": "F"}),
    ("file", "there/new", {"new": "F"}),
    ("file", "there/new/", "no such directory"),
    ("file", "used/", "not a directory"),
    ("file", "absent/new", "absent/new"),
    ("file/", "there", "not a directory"),
    ("dir", "there", under("dir")),
    ("dir/", "there", under("dir")),
    ("dir/.", "there", DIRECTORY),
    ("dir", "there/new", under("new")),
    ("dir/.", "there/new", under("new")),
    ("dir", "there/new/", under("new")),
    ("dir", "used", "no directory"),
    ("link", "there", {"link": "-> file"}),
    ("dirlink", "there", {"dirlink": "-> dir"}),
    ("dirlink/", "there", under("dirlink")),
    ("dirlink/.", "there", DIRECTORY),
    ("dir/../file", "there", {"file": "F"}),
    ("absent", "there", "absent"),
]


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize(
    ("source", "target", "expected"), RULES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_rules(
    source: str, target: str, expected: dict[str, str] | str, way: str, here: Path, root: Path,
    trees: tuple[HostTree, ContainerTree],
) -> None:  # fmt: skip
    host, container = trees
    sides = (host, f"{here}/{source}", container, f"/{target}")
    if way == "out":
        sides = (container, f"/{source}", host, f"{here}/{target}")  # type: ignore[assignment]  # the other way round
    changed = root if way == "in" else here
    before = below(changed)
    if isinstance(expected, str):
        with pytest.raises((NotFound, InvalidInput), match=expected):
            copy(*sides, follow=False, owner=OURS)
        assert below(changed) == before
        return
    copy(*sides, follow=False, owner=OURS)
    assert below(changed / "there") == expected


def test_a_file_takes_the_place_of_a_file(here: Path, root: Path, trees: tuple[HostTree, ContainerTree]) -> None:
    (here / "file").chmod(0o4751)
    os.utime(here / "file", (1_000, 1_000))
    size = copy(trees[0], f"{here}/file", trees[1], "used", follow=False, owner=OURS)
    status = (root / "used").stat()
    assert (size, (root / "used").read_text()) == (1, "F")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o4751, 1_000)


def test_follow_copies_what_the_link_leads_to(here: Path, trees: tuple[HostTree, ContainerTree]) -> None:
    copy(trees[1], "/link", trees[0], f"{here}/there", follow=True, owner=OURS)
    copy(trees[1], "/dirlink", trees[0], f"{here}/there", follow=True, owner=OURS)
    assert below(here / "there") == {"link": "F", **under("dirlink")}


def test_a_target_that_is_a_link_is_followed(here: Path, root: Path, trees: tuple[HostTree, ContainerTree]) -> None:
    (root / "to_file").symlink_to("/used")
    (root / "to_nothing").symlink_to("there/made")
    for target in ("to_file", "to_nothing", "dirlink"):
        copy(trees[0], f"{here}/file", trees[1], target, follow=False, owner=OURS)
    assert (root / "used").read_text() == "F"
    assert (root / "there/made").read_text() == "F"
    assert (root / "dir/file").read_text() == "F"
    assert (root / "to_file").is_symlink()


@pytest.mark.parametrize(("brought", "there"), [("dir", "file"), ("file", "dir")])
def test_kinds_that_meet_below_are_refused(
    brought: str, there: str, here: Path, root: Path, trees: tuple[HostTree, ContainerTree]
) -> None:
    for top, kind in ((here / "dir/name", brought), (root / "there/name", there)):
        top.mkdir() if kind == "dir" else top.write_text(kind)
    with pytest.raises(Conflict, match="cannot overwrite"):
        copy(trees[0], f"{here}/dir/.", trees[1], "/there", follow=False, owner=OURS)


OUTWARD = ["../../secret", "/../secret", "ABSOLUTE", "up/secret", "up/../secret", "loop"]


@pytest.mark.parametrize("path", OUTWARD)
def test_no_link_leads_out_of_the_container(
    path: str, here: Path, root: Path, tmp_path: Path, trees: tuple[HostTree, ContainerTree]
) -> None:
    (root / "up").symlink_to("../..")
    (root / "loop").symlink_to("loop")
    (root / "hard").symlink_to(path if path != "ABSOLUTE" else str(tmp_path / "secret"))
    for source in ("/hard", "/hard/", f"/{path}"):
        with pytest.raises(TierceError):
            copy(trees[1], source, trees[0], f"{here}/there", follow=True, owner=OURS)
    for target in ("/hard", f"/{path}"):
        try:
            copy(trees[0], f"{here}/file", trees[1], target, follow=False, owner=OURS)
        except TierceError:
            continue
    assert below(here / "there") == {}
    assert (tmp_path / "secret").read_text() == "secret"
    assert sorted(os.listdir(tmp_path)) == ["here", "root", "secret"]


def test_send_and_receive(root: Path, trees: tuple[HostTree, ContainerTree]) -> None:
    pieces: list[bytes] = []
    send(trees[1], "/dir", pieces.append, follow=False)
    receive(reader(b"".join(pieces)), trees[1], "/there")
    assert below(root / "there") == under("dir")


@pytest.mark.parametrize(
    ("target", "problem"),
    [("/file", "not a directory"), ("/absent", "could not find the file /absent in container web")],
)
def test_an_archive_needs_a_directory(target: str, problem: str, trees: tuple[HostTree, ContainerTree]) -> None:
    with pytest.raises(TierceError, match=problem):
        receive(reader(archive()), trees[1], target)


def test_an_archive_stays_in_its_directory(root: Path, trees: tuple[HostTree, ContainerTree]) -> None:
    (root / "there/out").symlink_to("/")
    bad = archive(member("out/../../file", content=b"bad", uid=OURS[0], gid=OURS[1]))
    with pytest.raises(TierceError, match="leaves the root"):
        receive(reader(bad), trees[1], "/there")
    receive(reader(archive(member("out/x", content=b"x", uid=OURS[0], gid=OURS[1]))), trees[1], "/there")
    assert (root / "there/x").read_text() == "x"
    assert (root / "file").read_text() == "F"


@pytest.mark.parametrize(
    ("text", "container", "path"),
    [
        ("web:/etc", "web", "/etc"),
        ("web:etc", "web", "etc"),
        ("web:", "web", ""),
        ("file", "", "file"),
        ("./a:b", "", "./a:b"),
        ("/a:b", "", "/a:b"),
        ("-", "", "-"),
        ("web:/a:b", "web", "/a:b"),
    ],
)
def test_places(text: str, container: str, path: str) -> None:
    assert Place.parse(text) == Place(container, path)
