"""Archives that try to get out of the target, to forge overlay's state, or to be expensive."""

from __future__ import annotations

import contextlib
import itertools
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.errors import InvalidArchive, StorageError
from store.unpack import Whiteouts, unpack
from tests.support.tars import archive, member, padded, pax, pax_record, raw, reader, seal_block
from tests.support.trees import Node, read_tree

pytestmark = pytest.mark.root

WHITEOUTS: tuple[Whiteouts, ...] = ("overlay", "apply", "keep")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """What lies around the target: things to overwrite, chmod, delete or link to."""
    host = tmp_path / "host"
    (host / "secret").mkdir(parents=True)
    (host / "secret/key").write_text("private")
    (host / "secret").chmod(0o700)
    (host / "passwd").write_text("root")
    os.mkfifo(host / "pipe")
    (host / "link").symlink_to("secret")
    (host / "target").mkdir()
    return host


def around(host: Path) -> dict[str, Node]:
    """The host without the target; access to the target's content changes the root's times, not those."""
    return {path: node for path, node in read_tree(host).items() if path.partition("/")[0] != "target"}


# Each archive is unpacked with every kind of whiteouts. "refused" means InvalidArchive; else the paths it may make.
ESCAPES: dict[str, tuple[list[bytes], set[str] | str]] = {
    "dot dot": ([raw(b"../passwd", b"0", b"x")], "refused"),
    "dot dot inside": ([raw(b"a/../../passwd", b"0", b"x")], "refused"),
    "dot dot directory": ([raw(b"..", b"5", mode=b"0000777")], "refused"),
    "dot dot in pax": ([pax((b"path", b"../passwd")), raw(b"f", b"0", b"x")], "refused"),
    "dot dot in a gnu name": ([raw(b"././@LongLink", b"L", b"../passwd\0"), raw(b"f", b"0", b"x")], "refused"),
    "dot dot in a prefix": ([raw(b"passwd", b"0", b"x", prefix=b"..")], "refused"),
    "absolute": ([raw(b"/f", b"0", b"x")], {"f"}),
    "dot dot hard link": ([member("f", "link", link="../passwd")], "refused"),
    "absolute hard link": ([member("f", "link", link="/passwd")], "refused"),
    "write through relative symlink": ([member("s", "symlink", link="../secret"), member("s/key", content=b"x")], {"s", "secret", "secret/key"}),
    "write through absolute symlink": ([member("s", "symlink", link="/HOST/secret"), member("s/f")], {"s", "HOST", "HOST/secret", "HOST/secret/f"}),
    "overwrite a symlink": ([member("s", "symlink", link="../passwd"), member("s", content=b"x")], {"s"}),
    "chmod through a symlink": ([member("s", "symlink", link="../secret"), member("s", "directory", mode=0o777)], {"s"}),
    "device through a symlink": ([member("s", "symlink", link=".."), member("s/dev", "char", device=(1, 3))], {"s", "dev"}),
    "symlink through a symlink": (
        [member("a", "symlink", link=".."), member("a/b", "symlink", link=".."), member("a/b/f")], {"a", "b", "f"}),
    "hard link through a symlink": ([member("s", "symlink", link=".."), member("f", "link", link="s/passwd")], "refused"),
    "hard link to a symlink, written to": (
        [member("s", "symlink", link="../passwd"), member("l", "link", link="s"), member("l", content=b"x")], {"s", "l"}),
    "hard link to a symlink, as a directory": (
        [member("s", "symlink", link="../secret"), member("l", "link", link="s"), member("l/f")], {"s", "l", "secret", "secret/f"}),
    "directory swapped for a symlink": (
        [member("d", "directory"), member("d/f"), member("d", "symlink", link="../secret"), member("d/key", content=b"x")],
        {"d", "secret", "secret/key"}),
    "directory time through a symlink": (
        [member("d", "directory", mtime=5), member("d", "symlink", link="../secret")], {"d"}),
    "parent swapped for a symlink": (
        [member("a/d", "directory", mtime=5), member("a", "symlink", link="..")], {"a"}),
    "symlink loop": ([member("a", "symlink", link="b"), member("b", "symlink", link="a"), member("a/f")], "refused"),
    "symlink to itself": ([member("a", "symlink", link="a/a/a"), member("a/f")], "refused"),
    "file as a directory": ([member("f"), member("f/g")], "refused"),
    "fifo as a directory": ([member("f", "fifo"), member("f/g")], "refused"),
    "hard link to a directory": ([member("d", "directory"), member("f", "link", link="d")], "refused"),
    "hard link to nothing": ([member("f", "link", link="absent")], "refused"),
    "hard link to the root": ([member("f", "link", link=".")], "refused"),
    "hard link to no name": ([raw(b"f", b"1")], "refused"),
    "symlink to no name": ([raw(b"f", b"2")], "refused"),
    "file at the root": ([raw(b"./", b"0", b"x")], "refused"),
    "symlink at the root": ([raw(b"/", b"2", link=b"../secret")], "refused"),
    "empty name": ([raw(b"", b"0", b"x")], "refused"),
    "zero byte in a name": ([pax((b"path", b"f\0/../../passwd")), raw(b"f", b"0", b"x")], "refused"),
    "zero byte in a target": ([pax((b"linkpath", b"f\0g")), raw(b"f", b"2")], "refused"),
    "zero byte in a hard link": ([pax((b"linkpath", b"f\0g")), raw(b"f", b"1")], "refused"),
    "long component": ([member("f" * 300)], "refused"),
    "long name": ([member("d/" * 3000 + "f")], "refused"),
    "long symlink target": ([member("f", "symlink", link="t/" * 3000)], "refused"),
}  # fmt: skip


@pytest.mark.parametrize("whiteouts", WHITEOUTS)
@pytest.mark.parametrize(("members", "outcome"), [pytest.param(*case, id=name) for name, case in ESCAPES.items()])
def test_nothing_outside_is_touched(
    host: Path, members: list[bytes], outcome: set[str] | str, whiteouts: Whiteouts
) -> None:
    before, descriptors = around(host), len(os.listdir("/proc/self/fd"))
    if isinstance(outcome, str):
        with pytest.raises(InvalidArchive) as caught:
            unpack(reader(archive(*members)), host / "target", whiteouts=whiteouts)
        assert caught.value.entry is not None
    else:
        unpack(reader(archive(*members)), host / "target", whiteouts=whiteouts)
        assert set(read_tree(host / "target")) == outcome | {"."}
    assert around(host) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh...", "d/.wh..", ".wh.d/f", ".wh.d/.wh..wh..opq"])
@pytest.mark.parametrize("whiteouts", ["overlay", "apply"])
def test_whiteouts_of_no_valid_name_are_refused(host: Path, name: str, whiteouts: Whiteouts) -> None:
    before = around(host)
    (host / "target/d").mkdir()
    (host / "target/f").touch()
    with pytest.raises(InvalidArchive, match="whiteout"):
        unpack(reader(archive(member(name))), host / "target", whiteouts=whiteouts)
    assert around(host) == before
    assert set(read_tree(host / "target")) == {".", "d", "f"}


@pytest.mark.parametrize("whiteouts", ["overlay", "apply"])
@pytest.mark.parametrize("name", ["s/.wh.key", "s/.wh..wh..opq", "../.wh.passwd", "d/../../.wh.passwd"])
def test_whiteouts_stay_inside(host: Path, name: str, whiteouts: Whiteouts) -> None:
    before = around(host)
    members = [member("d", "directory"), member("s", "symlink", link="../secret"), member(name)]
    try:
        unpack(reader(archive(*members)), host / "target", whiteouts=whiteouts)
    except InvalidArchive:
        assert ".." in name
    assert around(host) == before


def test_hard_link_to_a_whiteout_is_refused(host: Path) -> None:
    with pytest.raises(InvalidArchive, match="no file"):
        unpack(reader(archive(member(".wh.a"), member("b", "link", link="a"))), host / "target", whiteouts="overlay")
    with pytest.raises(InvalidArchive, match="not in the archive"):
        unpack(
            reader(archive(member(".wh.c"), member("d", "link", link=".wh.c"))), host / "target", whiteouts="overlay"
        )


@pytest.mark.parametrize("whiteouts", WHITEOUTS)
@pytest.mark.parametrize(
    "prefix",
    [b"SCHILY.xattr.trusted.overlay.", b"LIBARCHIVE.xattr.user.overlay.", b"LIBARCHIVE.xattr.%74rusted.overlay."],
)
@pytest.mark.parametrize("name", [b"opaque", b"redirect", b"metacopy", b"origin", b"whiteout"])
def test_overlay_attributes_cannot_be_forged(host: Path, prefix: bytes, name: bytes, whiteouts: Whiteouts) -> None:
    forged = pax((prefix + name, b"eQ=="))
    members = [forged, raw(b"d/", b"5"), forged, raw(b"f"), forged, raw(b"./", b"5")]
    unpack(reader(archive(*members)), host / "target", whiteouts=whiteouts)
    assert [node.xattrs for node in read_tree(host / "target").values()] == [(), (), ()]


@pytest.mark.parametrize("whiteouts", WHITEOUTS)
def test_device_0_0_is_made_as_docker_does(host: Path, whiteouts: Whiteouts) -> None:
    unpack(reader(archive(member("f", "char", device=(0, 0)))), host / "target", whiteouts=whiteouts)
    assert read_tree(host / "target")["f"].kind == "char"


def corrupt(block: bytes) -> bytes:
    return b"F" + block[1:]


def old_sparse(segments: list[tuple[int, int]], size: int, content: bytes) -> bytes:
    head = bytearray(raw(b"f", b"S", size=b"%011o" % len(content), magic=b"ustar  \0"))
    for number, segment in enumerate(segments):
        head[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % segment
    head[483:495] = b"%011o\0" % size
    return seal_block(head) + padded(content)


def sparse_1(table: bytes, size: bytes, content: bytes = b"") -> bytes:
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", size))
    return pax(*records) + raw(b"f", b"0", table.ljust(512, b"\0") + content)


HUGE = b"9" * 30
MALFORMED: dict[str, tuple[bytes, str]] = {
    "checksum": (corrupt(raw(b"f")), "checksum is wrong"),
    "no checksum": (raw(b"f", seal=False), "checksum is wrong"),
    "not a tar": (b"This is no tar. " * 64, "octal|checksum"),
    "unknown type": (raw(b"f", b"Z"), "type b'Z' is not supported"),
    "volume label": (raw(b"f", b"V"), "type b'V' is not supported"),
    "letters in a number": (raw(b"f", mode=b"12x4"), "not an octal number"),
    "eights in a number": (raw(b"f", size=b"00000000008"), "not an octal number"),
    "negative size": (raw(b"f", size=b"\xff" * 12), "size -1 is out of range"),
    "overflowing size": (raw(b"f", size=b"\x80" + b"\xff" * 11), "size .* is out of range"),
    "overflowing pax size": (pax((b"size", HUGE)) + raw(b"f"), "not a decimal number in range"),
    "negative pax size": (pax((b"size", b"-1")) + raw(b"f"), "not a decimal number"),
    "negative owner": (raw(b"f", uid=b"\xff" * 8), "owner -1 is out of range"),
    "owner that means unchanged": (pax((b"uid", b"4294967295")) + raw(b"f"), "owner 4294967295 is out of range"),
    "overflowing group": (pax((b"gid", b"4294967296")) + raw(b"f"), "owner 4294967296 is out of range"),
    "overflowing time": (raw(b"f", mtime=b"\x80" + b"\xff" * 11), "modification time .* is out of range"),
    "overflowing pax time": (pax((b"mtime", b"9223372037.0")) + raw(b"f"), "modification time .* is out of range"),
    "time of no number": (pax((b"mtime", b"soon")) + raw(b"f"), "not a decimal number"),
    "time with two points": (pax((b"mtime", b"1.2.3")) + raw(b"f"), "malformed"),
    "overflowing device": (raw(b"f", b"3", major=b"7777777"), "device number .* is out of range"),
    "negative device": (raw(b"f", b"4", minor=b"\xff" * 8), "device number .* is out of range"),
    "lone zero block": (bytes(512) + raw(b"f"), "lone zero block"),
    "header cut": (raw(b"f")[:300], "truncated inside a header"),
    "content cut": (raw(b"f", b"0", size=b"00000010000"), "truncated inside an entry"),
    "padding cut": (raw(b"f", b"0", b"abc")[:520], "truncated inside an entry"),
    "pax header cut": (pax((b"path", b"f" * 2000))[:700], "truncated inside an extended header"),
    "pax header before the end": (pax((b"path", b"f")) + bytes(1024), "extended header stands before the end"),
    "huge pax header": (raw(b"x", b"x", size=b"77777777777"), "over the limit"),
    "huge gnu name": (raw(b"x", b"L", size=b"00010000000"), "over the limit"),
    "negative pax header": (raw(b"x", b"x", size=b"\xff" * 12), "over the limit"),
    "pax record too long": (raw(b"x", b"x", b"99 path=f\n") + raw(b"f"), "malformed record"),
    "pax record too short": (raw(b"x", b"x", b"5 path=f\n") + raw(b"f"), "malformed record"),
    "pax record of length 0": (raw(b"x", b"x", b"0 path=f\n") + raw(b"f"), "malformed record"),
    "pax record of signed length": (raw(b"x", b"x", b"+11 path=f\n") + raw(b"f"), "not a decimal number"),
    "pax record without newline": (raw(b"x", b"x", pax_record(b"path", b"f")[:-1] + b"x") + raw(b"f"), "malformed record"),
    "pax record without value": (raw(b"x", b"x", b"8 patha\n") + raw(b"f"), "malformed record"),
    "pax record without key": (raw(b"x", b"x", b"6 =ab\n") + raw(b"f"), "malformed record"),
    "attribute of no name": (pax((b"SCHILY.xattr.", b"x")) + raw(b"f"), "attribute name"),
    "attribute with a zero byte": (pax((b"LIBARCHIVE.xattr.user.a%00b", b"eA==")) + raw(b"f"), "attribute name"),
    "attribute of bad base64": (pax((b"LIBARCHIVE.xattr.user.a", b"!!!")) + raw(b"f"), "not base64"),
    "attribute of a long name": (pax((b"SCHILY.xattr.user." + b"a" * 300, b"x")) + raw(b"f"), "result|range"),
    "attribute of a huge value": (pax((b"SCHILY.xattr.user.a", b"x" * 70_000)) + raw(b"f"), "too long"),
    "sparse overlap": (old_sparse([(0, 4), (2, 4)], 100, b"x" * 8), "overlapping"),
    "sparse past the end": (old_sparse([(90, 20)], 100, b"x" * 20), "past the end"),
    "sparse sum": (old_sparse([(0, 4)], 100, b"x" * 8), "does not match the stored size"),
    "sparse odd": (pax((b"GNU.sparse.map", b"0,1,2"), (b"GNU.sparse.size", b"9")) + raw(b"f", b"0", b"x"), "odd count"),
    "sparse letters": (pax((b"GNU.sparse.map", b"0,x"), (b"GNU.sparse.size", b"9")) + raw(b"f", b"0", b"x"), "not a decimal"),
    "sparse of no size": (pax((b"GNU.sparse.map", b"0,1")) + raw(b"f", b"0", b"x"), "not a decimal"),
    "sparse 1.0 short map": (sparse_1(b"9\n0\n1\n", b"9"), "truncated or too long"),
    "sparse 1.0 huge count": (sparse_1(b"999999999999999999\n", b"9"), "truncated or too long"),
    "sparse larger than any file": (sparse_1(b"0\n", b"9223372036854775807"), "file too large"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "problem"), [pytest.param(*case, id=name) for name, case in MALFORMED.items()])
def test_malformed_archives_are_refused(host: Path, data: bytes, problem: str) -> None:
    before = around(host)
    with pytest.raises(InvalidArchive, match=problem) as caught:
        unpack(reader(data), host / "target", whiteouts="overlay")
    assert "\n" not in str(caught.value)
    assert around(host) == before


def test_names_in_messages_cannot_break_the_terminal(host: Path) -> None:
    with pytest.raises(InvalidArchive) as caught:
        unpack(reader(archive(raw(b"a\n\x1b[31m/../../\xff"))), host / "target", whiteouts="overlay")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["pax headers", "gnu names", "entries", "holes", "sparse map"])
def test_endless_archives_take_bounded_memory(host: Path, kind: str) -> None:
    repeated = {
        "pax headers": pax(*((b"k%d" % number, b"v" * 900) for number in range(1000))),
        "gnu names": raw(b"x", b"L", b"n" * 1_000_000),
        "entries": b"".join(raw(b"f", b"0", b"x" * 100) for _ in range(1000)),
        "holes": sparse_1(b"1\n1000000000000\n0\n", b"1000000000000"),
        "sparse map": (b"%011o\0" % 0 * 42 + b"\1").ljust(512, b"\0") * 2000,
    }[kind]

    stream: Iterator[bytes] = itertools.repeat(repeated, 40)
    if kind == "sparse map":
        head = bytearray(raw(b"f", b"S", magic=b"ustar  \0"))
        head[482] = 1
        stream = itertools.chain([seal_block(head)], stream)
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidArchive):  # headers that no entry follows
            unpack(lambda _size: next(stream, b""), host / "target", whiteouts="overlay")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (next(stream, None) is None) == (kind != "sparse map")
    assert peak < 12 << 20


@given(
    data=st.lists(
        st.one_of(
            st.builds(
                raw,
                st.sampled_from([b"a", b"a/b", b"../x", b"", b".wh.a", b"a/.wh..wh..opq", b"/", b"a/b/c"]),
                st.sampled_from([b"0", b"1", b"2", b"5", b"6", b"x", b"L", b"K", b"g", b"S", b"\0"]),
                st.sampled_from([b"", b"x", b"11 path=a/b\n", b"../../passwd\0", b"a/b"]),
                link=st.sampled_from([b"", b"a", b"..", b"/", b"a/b", b"../secret"]),
            ),
            st.binary(max_size=600),
        ),
        max_size=8,
    ).map(b"".join),
    whiteouts=st.sampled_from(WHITEOUTS),
)
def test_any_bytes_end_in_a_tree_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, whiteouts: Whiteouts
) -> None:
    host = tmp_path_factory.mktemp("host")
    (host / "secret").mkdir()
    (host / "passwd").write_text("root")
    (host / "target").mkdir()
    before, descriptors = around(host), len(os.listdir("/proc/self/fd"))
    try:
        unpack(reader(data), host / "target", whiteouts=whiteouts)
    except InvalidArchive:
        pass
    except StorageError as error:
        raise AssertionError("a bad archive is not the storage's fault") from error
    assert around(host) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
