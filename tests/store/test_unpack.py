from __future__ import annotations

import gc
import io
import os
import shutil
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.errors import InvalidArchive, StorageError
from store.directories import PATH_LIMIT
from store.unpack import Unpacked, Whiteouts, clean, unpack
from tests.support.tars import Dialect, archive, member, pax, raw, reader, seal_block
from tests.support.trees import Node, read_tree

pytestmark = pytest.mark.root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir(mode=0o755)
    return path


def unpack_members(target: Path, *members: bytes, whiteouts: Whiteouts = "overlay", piece: int = 1 << 20) -> Unpacked:
    return unpack(reader(archive(*members), piece), target, whiteouts=whiteouts)


def tree(target: Path) -> dict[str, Node]:
    found = read_tree(target)
    del found["."]
    return found


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "trusted.overlay.opaque") == b"y"


# What one entry becomes


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (member("f", content=b"abc", mode=0o640, uid=7, gid=8, mtime=5),
         Node("file", "0640", 7, 8, 5_000_000_000, 3, "ba7816bf8f01cfea")),
        (member("f", mode=0o6755, uid=7, gid=8), Node("file", "6755", 7, 8, 0, 0, "e3b0c44298fc1c14")),
        (member("f", mode=0o7777), Node("file", "7777", 0, 0, 0, 0, "e3b0c44298fc1c14")),
        (member("f", mode=0), Node("file", "0000", 0, 0, 0, 0, "e3b0c44298fc1c14")),
        (member("f", mode=0o666), Node("file", "0666", 0, 0, 0, 0, "e3b0c44298fc1c14")),
        (member("f", "directory", mode=0o3777, uid=7, gid=8, mtime=9), Node("directory", "3777", 7, 8, 9_000_000_000)),
        (member("f", "symlink", link="../../etc/passwd", uid=7, gid=8, mtime=9),
         Node("symlink", "0777", 7, 8, 9_000_000_000, link="../../etc/passwd")),
        (member("f", "char", device=(1, 3), mode=0o666, uid=7, gid=8), Node("char", "0666", 7, 8, 0, device=(1, 3))),
        (member("f", "block", device=(4095, 1048575), mode=0o4660), Node("block", "4660", 0, 0, 0, device=(4095, 1048575))),
        (member("f", "fifo", mode=0o622, mtime=3), Node("fifo", "0622", 0, 0, 3_000_000_000)),
        (member("f", mtime=1.123456789), Node("file", "0644", 0, 0, 1_123456789, 0, "e3b0c44298fc1c14")),
        (member("f", pax={"mtime": "1700000000.123456789"}),
         Node("file", "0644", 0, 0, 1700000000_123456789, 0, "e3b0c44298fc1c14")),
        (member("f", pax={"mtime": "-1.5"}), Node("file", "0644", 0, 0, -1_500_000_000, 0, "e3b0c44298fc1c14")),
        (member("f", "directory", pax={"mtime": "5.000000001"}, mode=0o755), Node("directory", "0755", 0, 0, 5_000000001)),
        (member("f", "symlink", link="x", pax={"mtime": "5.000000001"}), Node("symlink", "0777", 0, 0, 5_000000001, link="x")),
        (member("f", uid=4_000_000_000, gid=3_000_000_000), Node("file", "0644", 4_000_000_000, 3_000_000_000, 0, 0, "e3b0c44298fc1c14")),
        (member("f", uid=4_000_000_000, dialect=tarfile.GNU_FORMAT), Node("file", "0644", 4_000_000_000, 0, 0, 0, "e3b0c44298fc1c14")),
        (member("f", mtime=-3, dialect=tarfile.GNU_FORMAT), Node("file", "0644", 0, 0, -3_000_000_000, 0, "e3b0c44298fc1c14")),
        (raw(b"f/", b"\0"), Node("directory", "0644", 0, 0, 0)),
        (raw(b"f", b"7", b"abc"), Node("file", "0644", 0, 0, 0, 3, "ba7816bf8f01cfea")),
        (raw(b"f", b"\0", b"abc", magic=b""), Node("file", "0644", 0, 0, 0, 3, "ba7816bf8f01cfea")),
        (raw(b"f", mode=b"   644 ", uid=b"", gid=b" 10\0"), Node("file", "0644", 0, 8, 0, 0, "e3b0c44298fc1c14")),
        (raw(b"f", mode=b"0100755"), Node("file", "0755", 0, 0, 0, 0, "e3b0c44298fc1c14")),
    ],
    ids=[
        "file", "setuid and setgid after chown", "all mode bits", "no mode bits", "mode beyond the umask", "directory",
        "symlink", "char device", "block device of largest number", "fifo", "float mtime of tarfile", "pax mtime with nanoseconds",
        "mtime before 1970", "directory mtime with nanoseconds", "symlink mtime with nanoseconds", "pax owners", "base-256 owner",
        "base-256 negative mtime", "v7 directory", "contiguous file", "v7 file", "blanks in numbers", "file type in the mode",
    ],
)  # fmt: skip
def test_entry_becomes(target: Path, entry: bytes, expected: Node) -> None:
    assert unpack_members(target, entry).entries == 1
    assert tree(target) == {"f": expected}


def test_modes_do_not_depend_on_the_umask_nor_change_it(target: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack_members(
            target, member("d", "directory", mode=0o775), member("d/f", mode=0o666), member("new/f", mode=0o755),
            member("d/p", "fifo", mode=0o666),
        )  # fmt: skip
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    modes = {path: node.mode for path, node in tree(target).items()}
    assert modes == {"d": "0775", "d/f": "0666", "d/p": "0666", "new": "0755", "new/f": "0755"}


def test_group_is_the_archives_below_a_setgid_directory(target: Path) -> None:
    unpack_members(
        target,
        member("d", "directory", mode=0o2775, gid=50),
        member("d/f"),
        member("d/sub", "directory", mode=0o755),
        member("d/implied/f"),
        member("d/link", "symlink", link="f"),
        member("d/pipe", "fifo"),
    )
    found = {path: (node.mode, node.gid) for path, node in tree(target).items()}
    assert found.pop("d") == ("2775", 50)
    assert {gid for _, gid in found.values()} == {0}
    assert found["d/sub"][0] == found["d/implied"][0] == "0755"


def test_times_of_directories_survive_later_entries(target: Path) -> None:
    unpack_members(
        target,
        member("d", "directory", mtime=7),
        member("d/e", "directory", mtime=8),
        member("d/e/f", content=b"x"),
        member("d/g"),
    )
    assert (target / "d").stat().st_mtime == 7
    assert (target / "d/e").stat().st_mtime == 8


def test_missing_parents_are_made(target: Path) -> None:
    unpack_members(target, member("a/b/c", uid=5))
    found = tree(target)
    assert (found["a"].mode, found["a"].uid, found["a/b"].mode) == ("0755", 0, "0755")


def test_root_entry_sets_the_target_itself(target: Path) -> None:
    unpack_members(target, member("./", "directory", mode=0o711, uid=4, gid=5, mtime=6), member("./f"))
    root = read_tree(target)["."]
    assert (root.mode, root.uid, root.gid, root.mtime_ns) == ("0711", 4, 5, 6_000_000_000)


def test_hard_links_share_an_inode(target: Path) -> None:
    unpack_members(
        target, member("a/f", content=b"x"), member("b/g", "link", link="a/f"), member("b/h", "link", link="./b//g")
    )
    assert tree(target)["a/f"].twins == ("b/g", "b/h")


def test_hard_link_to_a_symlink_is_to_the_symlink(target: Path) -> None:
    unpack_members(target, member("s", "symlink", link="/etc/passwd"), member("t", "link", link="s"))
    assert tree(target)["t"].link == "/etc/passwd"
    assert tree(target)["t"].twins == ("s",)


def test_hard_link_to_its_own_name_keeps_the_file(target: Path) -> None:
    unpack_members(target, member("f", content=b"x"), member("f", "link", link="f"))
    assert (target / "f").read_bytes() == b"x"


def test_extended_attributes(target: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    unpack_members(
        target,
        pax((b"SCHILY.xattr.security.capability", capability), (b"SCHILY.xattr.user.a%3Db", b"line\nline\0")),
        raw(b"f", uid=b"0000007"),
        pax((b"LIBARCHIVE.xattr.user.%C3%A9", b"dmFsdWU")),
        raw(b"d/", b"5"),
        pax((b"SCHILY.xattr.trusted.t", b"1")),
        raw(b"s", b"2", link=b"f"),
    )
    found = tree(target)
    assert found["f"].xattrs == (("security.capability", capability), ("user.a=b", b"line\nline\0"))
    assert found["d"].xattrs == (("user.é", b"value"),)
    assert found["s"].xattrs == (("trusted.t", b"1"),)


def test_attributes_that_the_file_system_cannot_store_are_named(target: Path) -> None:
    result = unpack_members(target, pax((b"SCHILY.xattr.user.a", b"1")), raw(b"s", b"2", link=b"x"))
    assert result.skipped_xattrs == ("user.a",)


def test_counts_entries_and_content(target: Path) -> None:
    assert unpack_members(target, member("d", "directory"), member("f", content=b"12345")) == Unpacked(2, 5)


@pytest.mark.parametrize("piece", [1, 100, 511, 513, 4096], ids=lambda piece: f"pieces of {piece}")
def test_stream_may_come_in_pieces_of_any_size(target: Path, piece: int) -> None:
    big = bytes(range(256)) * 41
    unpack_members(target, member("n" * 200, content=big), member("f", content=b"x"), piece=piece)
    assert (target / ("n" * 200)).read_bytes() == big
    assert (target / "f").read_bytes() == b"x"


# Names and extensions


@pytest.mark.parametrize(
    ("name", "path"),
    [("/etc/f", "etc/f"), ("./f", "f"), ("a//b/./f", "a/b/f"), ("a/../f", "f"), ("///f", "f"), (".hidden", ".hidden"), ("..f", "..f"), ("a/...", "a/...")],
)  # fmt: skip
def test_names_are_made_relative(target: Path, name: str, path: str) -> None:
    unpack_members(target, raw(name.encode(), b"0", b"x"))
    assert (target / path).read_bytes() == b"x"


@pytest.mark.parametrize("dialect", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_long_names_and_targets(target: Path, dialect: Dialect) -> None:
    name, link = "d" * 120 + "/" + "é" * 100, "t" * 300
    unpack_members(
        target, member(name, content=b"x", dialect=dialect), member("s", "symlink", link=link, dialect=dialect)
    )
    assert (target / name).read_bytes() == b"x"
    assert (target / "s").readlink() == Path(link)


def test_ustar_prefix(target: Path) -> None:
    unpack_members(target, raw(b"f", prefix=b"a/b"), raw(b"g", magic=b"ustar  \0", prefix=b"12345670000"))
    assert set(tree(target)) == {"a", "a/b", "a/b/f", "g"}


def test_names_need_not_be_utf8(target: Path) -> None:
    unpack_members(target, raw(b"\xff\xfe"))
    assert os.listdir(os.fsencode(target)) == [b"\xff\xfe"]


def test_global_pax_header_holds_until_overridden(target: Path) -> None:
    unpack_members(
        target,
        pax((b"uid", b"12"), (b"comment", b"of git archive"), typeflag=b"g"),
        raw(b"a"),
        pax((b"uid", b"13")),
        raw(b"b"),
        raw(b"c"),
        pax((b"uid", b""), typeflag=b"g"),
        raw(b"d"),
    )
    assert {path: node.uid for path, node in tree(target).items()} == {"a": 12, "b": 13, "c": 12, "d": 0}


def test_pax_size_counts(target: Path) -> None:
    unpack_members(target, pax((b"size", b"3")), raw(b"f", b"0", b"abc", size=b"00000000000"), raw(b"g"))
    assert (target / "f").read_bytes() == b"abc"
    assert (target / "g").exists()


def test_nothing_after_the_end_marker_is_looked_at(target: Path) -> None:
    data = archive(member("f")) + b"not a tar"
    unpack(reader(data), target, whiteouts="overlay")
    assert set(tree(target)) == {"f"}


@pytest.mark.parametrize(
    "data", [b"", bytes(512), bytes(1024), bytes(10240)], ids=["nothing", "one zero block", "two", "a record"]
)
def test_empty_archives(target: Path, data: bytes) -> None:
    assert unpack(reader(data), target, whiteouts="overlay") == Unpacked(0, 0)


def test_missing_end_marker_is_forgiven_at_an_entrys_end(target: Path) -> None:
    unpack(reader(member("f", content=b"x")), target, whiteouts="overlay")
    assert (target / "f").read_bytes() == b"x"


# Replacing


@pytest.mark.parametrize("first", ["file", "directory", "symlink", "fifo", "char", "link"])
@pytest.mark.parametrize("second", ["file", "directory", "symlink", "fifo", "char", "link"])
def test_later_entry_replaces_earlier(target: Path, first: str, second: str) -> None:
    def entry(kind: str, content: bytes) -> bytes:
        link = {"symlink": "elsewhere", "link": "other"}.get(kind, "")
        return member(
            "x", kind, content if kind == "file" else b"", link=link, device=(1, 3) if kind == "char" else (0, 0)
        )

    unpack_members(target, member("other", content=b"o"), entry(first, b"1"), entry(second, b"2"))
    found = tree(target)
    assert found["x"].kind == {"link": "file"}.get(second, second)
    assert (target / "other").read_bytes() == b"o"
    if second == "file":
        assert (target / "x").read_bytes() == b"2"


def test_directory_entry_again_changes_only_its_metadata(target: Path) -> None:
    unpack_members(
        target,
        member("d", "directory", mode=0o700, uid=1, mtime=1),
        member("d/f"),
        member("d", "directory", mode=0o755, uid=2, mtime=2),
    )
    found = tree(target)
    assert (found["d"].mode, found["d"].uid, found["d"].mtime_ns) == ("0755", 2, 2_000_000_000)
    assert "d/f" in found


def test_file_replaces_a_full_tree(target: Path) -> None:
    deep = "/".join("d" * 30)
    unpack_members(
        target,
        member(f"x/{deep}/f"),
        member("x/g"),
        member("x/e", "directory", mtime=3),
        member("x", content=b"now a file"),
    )
    assert (target / "x").read_bytes() == b"now a file"


# Whiteouts


@pytest.mark.parametrize("order", ["whiteout first", "whiteout last"])
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_entry_wins_over_a_whiteout_of_its_own_layer(target: Path, order: str, kind: str) -> None:
    members = [member(".wh.x"), member("x", kind, link="y" if kind == "symlink" else "")]
    unpack_members(target, *(members if order == "whiteout first" else reversed(members)))
    assert tree(target)["x"].kind == kind
    if kind == "directory":
        assert is_opaque(target / "x")


def test_whiteout_becomes_device_and_opaque_marker_an_attribute(target: Path) -> None:
    unpack_members(target, member("d/.wh.gone"), member("o/before"), member("o/.wh..wh..opq"), member("o/after"))
    assert is_whiteout(target / "d/gone")
    assert is_opaque(target / "o")
    assert not is_opaque(target / "d")
    assert set(tree(target)) == {"d", "d/gone", "o", "o/before", "o/after"}


def test_parent_made_over_a_whiteout_is_opaque(target: Path) -> None:
    unpack_members(target, member(".wh.d"), member("d/f"))
    assert is_opaque(target / "d")
    assert (target / "d").stat().st_mode & 0o7777 == 0o755


def test_names_with_whiteout_inside_are_plain(target: Path) -> None:
    unpack_members(target, member("x.wh.y"), member(".wh"))
    assert set(tree(target)) == {"x.wh.y", ".wh"}


def test_bookkeeping_of_aufs_is_skipped(target: Path) -> None:
    unpack_members(
        target, member(".wh..wh.aufs"), member(".wh..wh.plnk", "directory"), member(".wh..wh.plnk/1.2"), member("f")
    )
    assert set(tree(target)) == {"f"}


def test_kept_whiteouts_are_files(target: Path) -> None:
    unpack_members(target, member(".wh.x", content=b"1"), member("d/.wh..wh..opq"), whiteouts="keep")
    assert (target / ".wh.x").read_bytes() == b"1"
    assert (target / "d/.wh..wh..opq").is_file()
    assert not is_opaque(target / "d")


def test_whiteouts_show_through_a_real_overlay(target: Path, tmp_path: Path) -> None:
    lower, merged = tmp_path / "lower", tmp_path / "merged"
    for path in (lower / "d", lower / "o", lower / "r"):
        path.mkdir(parents=True)
        (path / "low").touch()
    merged.mkdir()
    unpack_members(
        target,
        member("d/.wh.low"),
        member("o/.wh..wh..opq"),
        member("o/new"),
        member(".wh.r"),
        member("r", "directory"),
    )
    subprocess.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={target}:{lower}", "overlay", merged], check=True)
    try:
        seen = sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))
    finally:
        subprocess.run(["umount", merged], check=True)
    assert seen == ["d", "o", "o/new", "r"]


def lower_tree(target: Path) -> None:
    for name in ("d/old", "d/sub/old", "d/sub/keep", "gone", "other/old"):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("low")


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ([member(".wh.gone"), member(".wh.absent"), member(".wh.other")], {"d", "d/old", "d/sub", "d/sub/old", "d/sub/keep"}),
        ([member("d/sub/new"), member("d/.wh..wh..opq")], {"d", "d/sub", "d/sub/new", "gone", "other", "other/old"}),
        ([member("d/.wh..wh..opq"), member("d/sub/new")], {"d", "d/sub", "d/sub/new", "gone", "other", "other/old"}),
        ([member("d/sub/keep"), member(".wh.d")], {"d", "d/sub", "d/sub/keep", "gone", "other", "other/old"}),
        ([member("gone", content=b"new"), member(".wh.gone"), member(".wh.d"), member(".wh.other")], {"gone"}),
        ([member("other", "symlink", link="d"), member(".wh.d"), member(".wh.gone")], {"other"}),
    ],
    ids=["plain", "opaque after", "opaque before", "tree with one new file", "same layer wins", "symlink over directory"],
)  # fmt: skip
def test_applied_whiteouts_remove_the_lower_ones_only(target: Path, members: list[bytes], left: set[str]) -> None:
    lower_tree(target)
    unpack_members(target, *members, whiteouts="apply")
    assert set(tree(target)) == left


def test_applied_whiteout_does_not_follow_a_symlink(target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("safe")
    (target / "s").symlink_to(outside)
    unpack_members(target, member(".wh.s"), whiteouts="apply")
    assert not (target / "s").is_symlink()
    assert (outside / "f").read_text() == "safe"


# Symlinks above an entry


@pytest.mark.parametrize("link", ["real", "/real", "../../../real", "./x/../real", "/hop"], ids=str)
def test_symlinks_above_are_followed_inside_the_target(target: Path, link: str) -> None:
    unpack_members(
        target, member("real", "directory", mode=0o700), member("hop", "symlink", link="real"), member("s", "symlink", link=link),
        member("s/f", content=b"x"), member("s/l", "link", link="s/f"), member("s/d", "directory", mtime=4),
    )  # fmt: skip
    assert (target / "real/f").read_bytes() == b"x"
    assert (target / "real/l").samefile(target / "real/f")
    assert (target / "real/d").stat().st_mtime == 4
    assert (target / "real").stat().st_mode & 0o7777 == 0o700


def test_absolute_symlink_in_a_directory_starts_at_the_target(target: Path) -> None:
    unpack_members(target, member("d/s", "symlink", link="/real"), member("d/s/f"))
    assert set(tree(target)) == {"d", "d/s", "real", "real/f"}


def test_symlink_to_nowhere_leads_to_a_new_directory_inside(target: Path) -> None:
    unpack_members(target, member("lib", "symlink", link="usr/lib"), member("lib/f"))
    assert (target / "usr/lib/f").is_file()


def test_directory_entry_replaces_a_symlink_instead_of_following(target: Path) -> None:
    unpack_members(
        target, member("real/f"), member("s", "symlink", link="real"), member("s", "directory"), member("s/g")
    )
    assert set(tree(target)) == {"real", "real/f", "s", "s/g"}


def test_time_is_not_set_through_a_symlink_that_took_a_directorys_place(target: Path) -> None:
    unpack_members(
        target,
        member("d", "directory", mtime=5),
        member("e", "directory", mtime=6),
        member("d", "symlink", link="e", mtime=7),
    )
    assert (target / "e").stat().st_mtime == 6


# Sparse files


def gnu_sparse_header(segments: list[tuple[int, int]], size: int, content: bytes, more: bool = False) -> bytes:
    table = b"".join(b"%011o\0%011o\0" % segment for segment in segments)
    head = bytearray(raw(b"f", b"S", size=b"%011o" % len(content), magic=b"ustar  \0"))
    head[386 : 386 + len(table)] = table
    head[482] = more
    head[483:495] = b"%011o\0" % size
    return seal_block(head)


@pytest.mark.parametrize(
    "data",
    [
        gnu_sparse_header([(0, 2), (8192, 3), (20000, 0)], 20000, b"abxyz") + b"abxyz" + bytes(507),
        pax((b"GNU.sparse.size", b"20000"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"0"),
            (b"GNU.sparse.numbytes", b"2"), (b"GNU.sparse.offset", b"8192"), (b"GNU.sparse.numbytes", b"3")) + raw(b"f", b"0", b"abxyz"),
        pax((b"GNU.sparse.size", b"20000"), (b"GNU.sparse.name", b"f"), (b"GNU.sparse.map", b"0,2,8192,3,20000,0"))
        + raw(b"GNUSparseFile.1/f", b"0", b"abxyz"),
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"20000"), (b"GNU.sparse.name", b"f"))
        + raw(b"GNUSparseFile.1/f", b"0", b"2\n0\n2\n8192\n3\n".ljust(512, b"\0") + b"abxyz"),
    ],
    ids=["old gnu", "pax 0.0", "pax 0.1", "pax 1.0"],
)  # fmt: skip
def test_sparse_files(target: Path, data: bytes) -> None:
    unpack_members(target, data, member("next"))
    content = bytearray(20000)
    content[0:2], content[8192:8195] = b"ab", b"xyz"
    assert (target / "f").read_bytes() == content
    assert (target / "f").stat().st_blocks * 512 < 20000
    assert (target / "next").exists()


# The archives of others


OTHERS = [
    ("gnu tar, gnu format", ["tar", "--format=gnu", "--numeric-owner", "-cf"]),
    ("gnu tar, posix format", ["tar", "--format=posix", "--xattrs", "--xattrs-include=*", "-cf"]),
    ("gnu tar, sparse gnu", ["tar", "--format=gnu", "--sparse", "-cf"]),
    ("gnu tar, sparse 0.0", ["tar", "--format=posix", "--sparse", "--sparse-version=0.0", "-cf"]),
    ("gnu tar, sparse 0.1", ["tar", "--format=posix", "--sparse", "--sparse-version=0.1", "-cf"]),
    ("gnu tar, sparse 1.0", ["tar", "--format=posix", "--sparse", "--sparse-version=1.0", "-cf"]),
    ("bsdtar", ["bsdtar", "--format=pax", "-cf"]),
]


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """A tree with one of everything."""
    root = tmp_path / "varied"
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/file").write_bytes(os.urandom(70_000))
    os.link(root / "d/e/file", root / "hard")
    (root / "soft").symlink_to("d/e/file")
    (root / ("long" * 50)).write_text("long name")
    (root / "far").symlink_to("long" * 60)
    (root / "ümläut").write_text("unicode")
    os.mkfifo(root / "pipe", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "owned").touch()
    os.chown(root / "owned", 3_000_000, 4_000_000)
    (root / "setuid").touch()
    (root / "setuid").chmod(0o4755)
    with open(root / "holes", "wb") as file:
        for number in range(60):
            file.seek(number * 100_000)
            file.write(b"data%d" % number)
        file.truncate(7_000_000)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_000), follow_symlinks=False)
    os.setxattr(root / "d", "user.note", b"on a directory")
    os.setxattr(root / "setuid", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    return root


@pytest.mark.parametrize(("argv"), [pytest.param(argv, id=name) for name, argv in OTHERS])
def test_reads_archives_of_other_tools_as_they_do(target: Path, tmp_path: Path, varied: Path, argv: list[str]) -> None:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    made, theirs = tmp_path / "made.tar", tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run([*argv, made, "-C", varied, "."], check=True)
    options = ["--xattrs", "--xattrs-include=*"] if argv[0] == "tar" else []
    subprocess.run([argv[0], "-xpf", made, "-C", theirs, *options], check=True)
    with open(made, "rb") as file:
        unpack(file.read, target, whiteouts="overlay")
    assert tree(target) == tree(theirs)


@pytest.mark.parametrize("dialect", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_reads_archives_of_tarfile(target: Path, varied: Path, dialect: Dialect) -> None:
    os.removexattr(varied / "d", "user.note")  # tarfile knows no extended attributes
    os.removexattr(varied / "setuid", "security.capability")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=dialect) as tar:
        tar.add(varied, ".")
    unpack(reader(stream.getvalue()), target, whiteouts="overlay")
    assert tree(target) == tree(varied)


# Resources and failures of the storage


def test_open_descriptors_are_bounded(target: Path) -> None:
    deep = "/".join(["d"] * 1500)
    many = [member(f"dir{number}/sub/f") for number in range(400)]
    most = 0

    def counting(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        def count(size: int) -> bytes:
            nonlocal most
            most = max(most, len(os.listdir("/proc/self/fd")))
            return read(size)

        return count

    gc.collect()  # what other tests left open must not close in between
    before = len(os.listdir("/proc/self/fd"))
    data = archive(
        member(f"{deep}/f"), *many, member("hard", "link", link=f"{deep}/f"), *many, member("d", content=b"x")
    )
    result = unpack(counting(reader(data, 512)), target, whiteouts="overlay")
    assert result.entries == 803
    assert len(os.listdir("/proc/self/fd")) == before
    assert most - before < 140
    assert (target / "d").read_bytes() == b"x"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=20", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_full_disk_names_the_entry(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="cannot unpack 'big': no space left on device"):
        unpack_members(small_disk, member("f"), member("big", content=bytes(100_000)))


def test_no_inodes_names_the_entry(small_disk: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot unpack 'f\d+': no space left on device"):
        unpack_members(small_disk, *(member(f"f{number}") for number in range(30)))


def test_absent_target_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot unpack into .*/absent: no such file or directory"):
        unpack_members(tmp_path / "absent", member("f"))


def test_two_threads_unpack_at_once(tmp_path: Path) -> None:
    members = [member(f"d{number % 7}/f{number}", content=b"x" * number, mode=0o666) for number in range(300)]
    failures: list[BaseException] = []

    def work(path: Path) -> None:
        try:
            unpack_members(path, *members)
        except BaseException as error:
            failures.append(error)

    targets = [tmp_path / name for name in "ab"]
    for path in targets:
        path.mkdir()
    threads = [threading.Thread(target=work, args=(path,)) for path in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    contents = [{path: (node.mode, node.content) for path, node in tree(target).items()} for target in targets]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 307


# Names


@given(st.lists(st.sampled_from([b"a", b"bb", b".", b"..", b"", b".c"]), min_size=1, max_size=8).map(b"/".join))
def test_clean_agrees_with_normpath(name: bytes) -> None:
    expected = os.path.normpath(b"./" + name.lstrip(b"/")) if name else None
    try:
        path = clean(name)
    except InvalidArchive:
        assert expected is None or expected.startswith(b"..") or leaves(name)
    else:
        assert (path or b".") == expected


def leaves(name: bytes) -> bool:
    depth = 0
    for part in name.split(b"/"):
        depth += {b"..": -1, b".": 0, b"": 0}.get(part, 1)
        if depth < 0:
            return True
    return False


def test_clean_bounds_the_length() -> None:
    assert clean(b"a/" * 2047 + b"a") == b"a/" * 2047 + b"a"
    with pytest.raises(InvalidArchive, match="longer than"):
        clean(b"a" * (PATH_LIMIT + 1))
