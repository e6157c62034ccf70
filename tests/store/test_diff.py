from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image.errors import InvalidInput, StorageError
from store.diff import Packed, pack
from store.tar import Kind, header
from store.unpack import unpack
from tests.support.tars import archive, member, reader
from tests.support.trees import Node, read_tree

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


def packed(directory: Path, *, clamp_s: int | None = None, whiteouts: bool = True) -> bytes:
    pieces: list[bytes] = []
    pack(directory, pieces.append, clamp_s=clamp_s, whiteouts=whiteouts)
    return b"".join(pieces)


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def names(data: bytes) -> list[str]:
    return [info.name for info in members(data)]


def whole_seconds(tree: dict[str, Node]) -> dict[str, Node]:
    return {path: replace(node, mtime_ns=node.mtime_ns // 10**9 * 10**9) for path, node in tree.items() if path != "."}


@pytest.fixture
def varied(upper: Path) -> Path:
    """A tree with one of everything that a tar can hold."""
    (upper / "d/e").mkdir(parents=True)
    (upper / "d").chmod(0o1777)
    (upper / "d/e/file").write_bytes(bytes(range(256)) * 300)
    os.link(upper / "d/e/file", upper / "hard")
    (upper / "soft").symlink_to("d/e/file")
    os.link(upper / "soft", upper / "soft2", follow_symlinks=False)
    (upper / "far").symlink_to("x" * 150)
    (upper / ("long" * 40)).write_text("long name")
    (upper / "a" / ("b" * 90)).mkdir(parents=True)
    (upper / "a" / ("b" * 90) / ("c" * 90)).write_text("fits ustar's prefix")
    (upper / "ümläut").write_text("unicode")
    (upper / os.fsdecode(b"\xff\xfe")).write_text("no unicode")
    os.mkfifo(upper / "pipe", 0o640)
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(upper / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    (upper / "owned").touch()
    os.chown(upper / "owned", 3_000_000, 4_000_000_000)
    (upper / "setuid").touch()
    (upper / "setuid").chmod(0o6755)
    os.setxattr(upper / "d", "user.note", b"on a directory\n")
    os.setxattr(upper / "setuid", "security.capability", CAPABILITY)
    os.setxattr(upper / "soft", "trusted.note", b"on a symlink", follow_symlinks=False)
    for number, path in enumerate(sorted(upper.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_000_000_001 + number * 1_000_000_000), follow_symlinks=False)
    os.utime(upper / "owned", (0, -7))
    os.utime(upper / "pipe", (0, 9_000_000_000))
    return upper


def test_round_trip_of_everything(varied: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    unpack(reader(packed(varied)), target, whiteouts="overlay")
    assert whole_seconds(read_tree(target)) == whole_seconds(read_tree(varied))


def test_same_tree_gives_same_bytes(varied: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    unpack(reader(packed(varied)), copy, whiteouts="overlay")
    assert packed(copy) == packed(varied)


def test_counts_entries_and_content(upper: Path) -> None:
    (upper / "d").mkdir()
    (upper / "d/f").write_text("12345")
    os.link(upper / "d/f", upper / "g")
    assert pack(upper, lambda _: None, clamp_s=None) == Packed(3, 5)


def test_entries_are_sorted_by_bytes_and_the_root_has_none(upper: Path) -> None:
    for name in ("b", "B", "a-", "a", "ä", "a.d"):
        (upper / name).touch()
    (upper / "a0").mkdir()
    (upper / "a0/z").touch()
    assert names(packed(upper)) == ["B", "a", "a-", "a.d", "a0", "a0/z", "b", "ä"]


def test_headers_are_plain_ustar_without_user_names(upper: Path) -> None:
    (upper / "f").write_text("x")
    os.utime(upper / "f", ns=(0, 1_700_000_000_999_999_999))
    data = packed(upper)
    assert len(data) == 512 + 512 + 1024
    info = members(data)[0]
    assert (info.uname, info.gname, info.mtime, info.pax_headers) == ("", "", 1_700_000_000, {})
    assert data[257:265] == b"ustar\x0000"


def test_clamp_lowers_later_times_only(upper: Path) -> None:
    for name, mtime in (("early", 100), ("late", 10**9)):
        (upper / name).touch()
        os.utime(upper / name, (0, mtime))
    assert {info.name: info.mtime for info in members(packed(upper, clamp_s=5000))} == {"early": 100, "late": 5000}


def test_name_of_each_length_is_read_back(upper: Path) -> None:
    for length in (99, 100, 101, 155, 156, 255):
        (upper / ("n" * length)).touch()
        (upper / ("d" * 60) / ("e" * length)).parent.mkdir(exist_ok=True)
        (upper / ("d" * 60) / ("e" * length)).touch()
    expected = sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))
    assert sorted(names(packed(upper))) == expected


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        (b"n" * 100, 1), (b"n" * 101, 3), (b"d" * 155 + b"/" + b"n" * 100, 1), (b"d" * 156 + b"/" + b"n" * 100, 3),
        (b"d" * 155 + b"/" + b"n" * 101, 3), (b"d" * 154 + b"/" + b"n" * 99 + b"/", 1), (b"d" * 101 + b"/", 3),
    ],
    ids=["100", "101", "prefix of 155", "prefix of 156", "name of 101 after a prefix", "directory", "nothing to cut"],
)  # fmt: skip
def test_pax_is_used_only_where_a_name_does_not_fit(name: bytes, blocks: int) -> None:
    written = header(name, Kind.FILE)
    assert len(written) == 512 * blocks
    with tarfile.open(fileobj=io.BytesIO(written), mode="r|") as tar:
        first = tar.next()
    assert first is not None
    assert first.name.rstrip("/") == name.decode().rstrip("/")


@pytest.mark.parametrize(
    ("values", "attribute", "expected"),
    [
        ({"size": 8 << 30}, "size", 8 << 30),
        ({"size": 1 << 50}, "size", 1 << 50),
        ({"uid": 2_097_152}, "uid", 2_097_152),
        ({"gid": 4_294_967_294}, "gid", 4_294_967_294),
        ({"mtime_s": -1}, "mtime", -1),
        ({"mtime_s": 1 << 40}, "mtime", 1 << 40),
    ],
    ids=["8 GiB", "1 PiB", "uid past octal", "largest gid", "before 1970", "far future"],
)
def test_large_numbers_are_in_pax(values: dict[str, int], attribute: str, expected: int) -> None:
    blocks = header(b"f", Kind.FILE, **values)  # type: ignore[arg-type]
    info = tarfile.TarInfo.frombuf(blocks[-512:], "utf-8", "surrogateescape")
    assert getattr(info, attribute) == 0
    with tarfile.open(fileobj=io.BytesIO(blocks), mode="r|") as tar:
        first = tar.next()
    assert first is not None
    assert getattr(first, attribute) == expected


def test_largest_values_of_ustar_need_no_pax() -> None:
    assert len(header(b"n" * 100, Kind.FILE, size=(8 << 30) - 1, uid=2_097_151, mtime_s=8_589_934_591)) == 512


@pytest.mark.parametrize(
    ("name", "link"), [(b"\xff" * 100, b"\xff" * 100), (b"z" * 100 + b"/" + b"z" * 100, b"\xff" * 100)], ids=["bytes", "prefix"]
)  # fmt: skip
def test_checksum_of_the_largest_header(name: bytes, link: bytes) -> None:
    largest = header(
        name, Kind.CHAR_DEVICE, mode=0o7777, uid=0o7777777, gid=0o7777777, size=0o77777777777, mtime_s=0o77777777777,
        link=link, device=(0o7777, 0o3777777),
    )  # fmt: skip
    block = largest[-512:]
    assert int(block[148:154], 8) == sum(block[:148]) + 8 * 32 + sum(block[156:])


# Overlay


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def test_whiteouts_and_opaque_directories(upper: Path) -> None:
    for name in ("trusted", "user", "plain"):
        (upper / name).mkdir()
        (upper / name / "f").touch()
    os.setxattr(upper / "trusted", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "user", "user.overlay.opaque", b"y")
    os.setxattr(upper / "plain", "trusted.overlay.opaque", b"x")
    whiteout(upper / "plain/gone")
    os.link(upper / "plain/gone", upper / "gone2")  # as overlay does to save inodes
    data = packed(upper)
    assert names(data) == [
        ".wh.gone2", "plain", "plain/f", "plain/.wh.gone", "trusted", "trusted/.wh..wh..opq", "trusted/f",
        "user", "user/.wh..wh..opq", "user/f",
    ]  # fmt: skip
    marks = [info for info in members(data) if ".wh." in info.name]
    assert all(info.isreg() and info.size == info.mtime == info.uid == 0 for info in marks)
    assert all(info.pax_headers == {} for info in members(data))


def test_without_whiteouts_things_are_what_they_are(upper: Path) -> None:
    whiteout(upper / "dev")
    (upper / ".wh.name").touch()
    (upper / "d").mkdir()
    os.setxattr(upper / "d", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "d", "trusted.overlay.redirect", b"/old")
    data = packed(upper, whiteouts=False)
    assert [(info.name, info.type) for info in members(data)] == [(".wh.name", b"0"), ("d", b"5"), ("dev", b"3")]
    assert members(data)[1].pax_headers == {}


def test_attributes_of_overlay_and_of_the_host_stay_behind(upper: Path) -> None:
    (upper / "f").touch()
    (upper / "d").mkdir()
    for name in (
        "trusted.overlay.origin",
        "trusted.overlay.impure",
        "user.overlay.origin",
        "trusted.overlay.nlink",
        "security.selinux",
    ):
        os.setxattr(upper / "f", name, b"x")
        os.setxattr(upper / "d", name, b"x")
    os.setxattr(upper / "f", "user.mine", b"1")
    assert [info.pax_headers for info in members(packed(upper))] == [{}, {"SCHILY.xattr.user.mine": "1"}]


@pytest.mark.parametrize("name", ["trusted.overlay.redirect", "user.overlay.redirect", "trusted.overlay.metacopy"])
def test_what_overlay_stores_elsewhere_is_refused(upper: Path, name: str) -> None:
    (upper / "d").mkdir()
    os.setxattr(upper / "d", name, b"/old")
    with pytest.raises(InvalidInput, match=r"cannot store 'd' in a layer: .*redirect_dir=off"):
        packed(upper)


@pytest.mark.parametrize("name", [".wh.x", ".wh.", ".wh..wh..opq"])
def test_names_that_mean_deletion_are_refused(upper: Path, name: str) -> None:
    (upper / "d").mkdir()
    (upper / "d" / name).touch()
    with pytest.raises(InvalidInput, match=r"cannot store 'd/.wh.* mean deletion"):
        packed(upper)


def test_a_real_overlays_upper_directory(tmp_path: Path) -> None:
    lower, upper, work, merged, target = (tmp_path / name for name in ("lower", "upper", "work", "merged", "target"))
    for path in (lower, upper, work, merged, target):
        path.mkdir()
    for name in ("kept/f", "gone/f", "new/f", "file"):
        (lower / name).parent.mkdir(exist_ok=True)
        (lower / name).write_text("low")
    mount = ["mount", "-t", "overlay", "overlay", "-o"]
    subprocess.run([*mount, f"lowerdir={lower},upperdir={upper},workdir={work}", merged], check=True)
    try:
        shutil.rmtree(merged / "gone")
        shutil.rmtree(merged / "new")
        (merged / "new").mkdir()
        (merged / "new/g").write_text("new")
        (merged / "kept/f").chmod(0o600)
        (merged / "file").unlink()
        expected = read_tree(merged)
    finally:
        subprocess.run(["umount", merged], check=True)
    unpack(reader(packed(upper)), target, whiteouts="overlay")
    subprocess.run([*mount, f"ro,lowerdir={target}:{lower}", merged], check=True)
    try:
        assert whole_seconds(read_tree(merged)) == whole_seconds(expected)
    finally:
        subprocess.run(["umount", merged], check=True)


# Files that misbehave


def test_sockets_are_left_out(upper: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "s"))
    (upper / "t").touch()
    assert names(packed(upper)) == ["t"]


@pytest.mark.parametrize(
    ("size", "becomes"), [(0, 1), (1000, 0), (1000, 999), (1000, 1001), (3 << 20, (3 << 20) - 1), (3 << 20, (3 << 20) + 1), (1000, 3 << 20)]
)  # fmt: skip
def test_file_that_changes_size_is_an_error(
    upper: Path, size: int, becomes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = upper / "f"
    path.write_bytes(bytes(size))
    real = os.listxattr

    def meanwhile(fd: int) -> list[str]:
        """Called between fstat and read: the moment that no real writer can be made to hit."""
        os.truncate(path, becomes)
        return real(fd)

    monkeypatch.setattr(os, "listxattr", meanwhile)
    with pytest.raises(StorageError, match="cannot pack 'f': it changed while it was read"):
        packed(upper)


def test_file_that_became_a_fifo_does_not_block(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (upper / "f").touch()
    real = os.open

    def swapped(path: str | bytes | Path, flags: int, *args: int, **options: int) -> int:
        if path == b"f":
            (upper / "f").unlink()
            os.mkfifo(upper / "f")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(StorageError, match="it changed"):
        packed(upper)


def test_directory_that_is_moved_away_meanwhile_is_an_error(upper: Path, tmp_path: Path) -> None:
    (upper / "d").mkdir()
    (upper / "d/big").write_bytes(bytes(1 << 20))
    (tmp_path / "elsewhere").mkdir()

    def move(_piece: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            (upper / "d").rename(tmp_path / "elsewhere/d")

    with pytest.raises(StorageError, match="cannot pack 'd/big': stale file handle"):
        pack(upper, move, clamp_s=None)


def test_sparse_file_streams_in_flat_memory(upper: Path) -> None:
    with open(upper / "holes", "wb") as file:
        file.truncate(300 << 20)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        pack(upper, lambda piece: sizes.append(len(piece)), clamp_s=None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 512 + (300 << 20) + 1024
    assert peak < 8 << 20


def test_trees_of_any_depth_take_few_descriptors(upper: Path) -> None:
    deep = "/".join(["d"] * 1500)
    before, most = len(os.listdir("/proc/self/fd")), 0

    def emit(_piece: bytes) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))

    try:
        unpack(reader(archive(member(f"{deep}/f"))), upper, whiteouts="overlay")
        assert pack(upper, emit, clamp_s=None).entries == 1501
    finally:  # pytest's own clean-up recurses
        unpack(reader(archive(member(".wh.d"))), upper, whiteouts="apply")
    assert most - before <= 4
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(upper) == []


def test_path_beyond_the_kernels_limit_is_refused(upper: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(InvalidInput, match="its path is longer than 4095 bytes"):
        packed(upper)


def test_absent_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot pack '.*/absent': no such file or directory"):
        packed(tmp_path / "absent")


# Others read our archives


def tar_reads(data: bytes, target: Path) -> None:
    subprocess.run(["tar", "-xpf", "-", "-C", target, "--xattrs", "--xattrs-include=*"], input=data, check=True)


def bsdtar_reads(data: bytes, target: Path) -> None:
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    subprocess.run(["bsdtar", "-xpf", "-", "-C", target], input=data, check=True, env=environment)


def tarfile_reads(data: bytes, target: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        if hasattr(tarfile, "fully_trusted_filter"):  # Python 3.11.4
            tar.extraction_filter = staticmethod(tarfile.fully_trusted_filter)
        tar.extractall(target, numeric_owner=True)


@pytest.mark.parametrize(
    ("read", "tool"), [(tar_reads, "tar"), (bsdtar_reads, "bsdtar"), (tarfile_reads, "python3")], ids=["gnu tar", "bsdtar", "tarfile"]
)  # fmt: skip
def test_other_tools_read_the_same(
    varied: Path, tmp_path: Path, read: Callable[[bytes, Path], None], tool: str
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    target = tmp_path / "theirs"
    target.mkdir()
    if tool == "bsdtar":  # refuses names that are not of its locale
        (varied / os.fsdecode(b"\xff\xfe")).unlink()
    if tool == "python3":  # knows no attributes, and follows a hard link to a symlink
        (varied / "soft2").unlink()
        for path, name in (("d", "user.note"), ("setuid", "security.capability"), ("soft", "trusted.note")):
            os.removexattr(varied / path, name, follow_symlinks=False)
    read(packed(varied), target)
    theirs, ours = whole_seconds(read_tree(target)), whole_seconds(read_tree(varied))
    if tool == "python3":  # nor times of symlinks
        theirs, ours = without_symlink_times(theirs), without_symlink_times(ours)
    assert theirs == ours


def without_symlink_times(tree: dict[str, Node]) -> dict[str, Node]:
    return {path: replace(node, mtime_ns=0) if node.kind == "symlink" else node for path, node in tree.items()}


@pytest.mark.peer
def test_umoci_reads_the_same(varied: Path, tmp_path: Path) -> None:
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    image, bundle = f"{tmp_path}/image", f"{tmp_path}/bundle"
    layer = tmp_path / "layer.tar"
    whiteout(varied / "hidden")
    (varied / "disk").unlink()
    layer.write_bytes(packed(varied))
    (varied / "hidden").unlink()
    for argv in (
        ["umoci", "init", "--layout", image],
        ["umoci", "new", "--image", f"{image}:x"],
        ["umoci", "raw", "add-layer", "--image", f"{image}:x", str(layer)],
        ["umoci", "unpack", "--image", f"{image}:x", bundle],
    ):
        subprocess.run(argv, check=True, capture_output=True)
    theirs, ours = read_tree(Path(bundle, "rootfs")), read_tree(varied)
    assert whole_seconds(theirs) == whole_seconds(ours)


# Any tree


NAMES = st.sampled_from(["a", "b", "c.txt", ".hidden", "ü", "n" * 120, " ", "-", "*"])
FILES = st.builds(
    lambda content, mode, uid, mtime, xattr: ("file", content, mode, uid, mtime, xattr),
    st.binary(max_size=1200),
    st.integers(0, 0o7777),
    st.sampled_from([0, 1000, 3_000_000_000]),
    st.integers(-(10**9), 2 * 10**9),
    st.none() | st.binary(max_size=20),
)
LINKS = st.builds(lambda target: ("symlink", target), st.text("ab/.ü", min_size=1, max_size=130))
Tree = dict[str, object]
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(NAMES, FILES | LINKS | st.just(("fifo",)) | st.just(("whiteout",)), max_size=4),
    lambda below: st.dictionaries(NAMES, st.tuples(st.just("directory"), below, st.booleans(), st.integers(0, 0o7777)) | FILES, max_size=4),
    max_leaves=12,
)  # fmt: skip


def make(directory: Path, tree: Tree) -> None:
    for name, what in tree.items():
        path = directory / name
        match what:
            case ("file", bytes(content), int(mode), int(uid), int(mtime), xattr):
                path.write_bytes(content)
                os.chown(path, uid, 0)
                path.chmod(mode)
                if isinstance(xattr, bytes):
                    os.setxattr(path, "user.x", xattr)
                os.utime(path, (0, mtime))
            case ("symlink", str(target)):
                path.symlink_to(target)
            case ("fifo",):
                os.mkfifo(path)
            case ("whiteout",):
                whiteout(path)
                os.utime(path, (0, 0))
            case ("directory", dict(below), bool(opaque), int(mode)):
                path.mkdir()
                make(path, below)
                path.chmod(mode)
                if opaque:
                    os.setxattr(path, "trusted.overlay.opaque", b"y")


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_any_tree_survives_the_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    top = tmp_path_factory.mktemp("tree")
    before, after = top / "before", top / "after"
    before.mkdir()
    after.mkdir()
    make(before, tree)
    data = packed(before)
    unpack(reader(data, piece=700), after, whiteouts="overlay")
    old, new = (whole_seconds(read_tree(path)) for path in (before, after))
    for found in (old, new):  # a whiteout's time is not kept
        found.update({path: replace(node, mtime_ns=0) for path, node in found.items() if node.kind == "char"})
    assert new == old
    assert packed(after) == data
