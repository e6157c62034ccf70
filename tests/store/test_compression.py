from __future__ import annotations

import bz2
import gzip
import hashlib
import itertools
import lzma
import platform
import random
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from image.errors import InvalidArchive, InvalidInput
from store.compression import PIECE_SIZE, compressor, decompressor, detect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression
    from store.compression import Codec

COMPRESSIONS: tuple[Compression, ...] = ("uncompressed", "gzip", "zstd")
CODECS: tuple[Codec, ...] = (*COMPRESSIONS, "bzip2", "xz")
Packed = Literal["gzip", "zstd", "bzip2", "xz"]
QEMU = shutil.which("qemu-x86_64") or "qemu-x86_64"
PACKED: tuple[Packed, ...] = ("gzip", "zstd", "bzip2", "xz")


def pack(codec: Codec, content: bytes) -> bytes:
    """``content`` as the codec's own library packs it."""
    match codec:
        case "uncompressed":
            return content
        case "gzip":
            return gzip.compress(content, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor(write_checksum=True).compress(content)
        case "bzip2":
            return bz2.compress(content)
        case "xz":
            return lzma.compress(content)


def inflate(codec: Codec, data: bytes, chunk: int = 1 << 16) -> bytes:
    stream = decompressor(codec)
    content = b"".join(piece for at in range(0, len(data), chunk) for piece in stream.decompress(data[at : at + chunk]))
    stream.close()
    return content


def deflate(compression: Compression, content: bytes, cuts: list[int], level: int | None = None) -> bytes:
    stream = compressor(compression, level)
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [stream.compress(content[start:end]) for start, end in itertools.pairwise(edges)]
    return b"".join(pieces) + stream.flush()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 16], ids=lambda chunk: f"by {chunk}")
def test_reads_what_the_codecs_library_wrote(codec: Codec, chunk: int) -> None:
    content = bytes(range(256)) * 50
    assert inflate(codec, pack(codec, content), chunk) == content


@pytest.mark.parametrize("codec", PACKED)
def test_members_that_follow_each_other_are_one_stream(codec: Codec) -> None:
    data = pack(codec, b"one ") + pack(codec, b"two ") + pack(codec, b"") + pack(codec, b"three")
    assert inflate(codec, data) == b"one two three"
    assert inflate(codec, data, chunk=3) == b"one two three"


def test_zstd_skippable_frames_carry_no_content() -> None:
    skippable = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    frame = pack("zstd", b"content")
    assert detect(skippable + frame) == "zstd"
    assert inflate("zstd", skippable + frame + skippable) == b"content"


@pytest.mark.parametrize("chunk", [1, 1000, 1 << 18], ids=lambda chunk: f"by {chunk}")
@pytest.mark.parametrize(
    "parameters",
    [
        {"level": 1}, {"level": 19}, {"write_checksum": True}, {"write_content_size": False},
        {"write_checksum": True, "write_content_size": False}, {"level": -5},
    ],
    ids=str,
)  # fmt: skip
def test_zstd_frames_of_many_blocks(parameters: dict[str, Any], chunk: int) -> None:
    content = random.Random(7).randbytes(150_000) + bytes(2 << 20) + b"text, text and text. " * 20_000
    compressor_ = zstandard.ZstdCompressor(**parameters)
    whole = compressor_.compress(content)
    stream = compressor_.compressobj()
    flushed = (
        stream.compress(content[:1000])
        + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        + stream.compress(content[1000:])
    )
    data = whole + flushed + stream.flush()
    assert inflate("zstd", data if chunk > 1 else whole, chunk) == (content * 2 if chunk > 1 else content)


@pytest.mark.parametrize("codec", ["gzip", "bzip2", "xz"])
def test_zero_padding_after_the_last_member_is_ignored(codec: Codec) -> None:
    assert inflate(codec, pack(codec, b"content") + bytes(1024), chunk=100) == b"content"


@pytest.mark.parametrize("codec", PACKED)
def test_anything_else_after_the_last_member_is_refused(codec: Codec) -> None:
    with pytest.raises(InvalidArchive, match=f"{codec} stream is"):
        inflate(codec, pack(codec, b"content") + b"trailing garbage")


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("keep", [0, 3, 0.5, -1], ids=lambda keep: f"keeping {keep}")
def test_truncation_is_found(codec: Codec, keep: float) -> None:
    whole = pack(codec, bytes(range(256)) * 50)
    data = whole[: int(len(whole) * keep) if 0 < keep < 1 else int(keep)]
    with pytest.raises(InvalidArchive, match="truncated"):
        inflate(codec, data)


@pytest.mark.parametrize("codec", PACKED)
def test_damage_is_found(codec: Codec) -> None:
    data = bytearray(pack(codec, bytes(range(256)) * 50))
    data[-6] ^= 0xFF
    with pytest.raises(InvalidArchive, match=f"{codec} stream is"):
        inflate(codec, bytes(data))


@pytest.mark.parametrize(
    ("codec", "limit"), [("gzip", 4 << 20), ("bzip2", 16 << 20), ("xz", 40 << 20), ("zstd", 8 << 20)]
)
def test_a_bomb_comes_in_bounded_pieces(codec: Packed, limit: int) -> None:
    content = bytes(300 << 20)
    bomb = zstandard.ZstdCompressor(level=19).compress(content) if codec == "zstd" else pack(codec, content)
    size = len(content)
    del content
    tracemalloc.start()
    try:
        stream, total = decompressor(codec), 0
        for piece in stream.decompress(bomb):
            total += len(piece)
            assert 0 < len(piece) <= PIECE_SIZE
        stream.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < limit


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(content=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_round_trip_in_any_chunks(compression: Compression, content: bytes, cuts: list[int]) -> None:
    assert inflate(compression, deflate(compression, content, cuts)) == content


@pytest.mark.parametrize(
    ("compression", "level"),
    [("uncompressed", None), *((name, level) for name in ("gzip", "zstd") for level in (None, 1, 3, 6))],
)
@given(cuts=st.lists(st.integers(0, 3 * PIECE_SIZE), max_size=4), size=st.integers(0, 40))
@example(cuts=[PIECE_SIZE - 1], size=0)
@example(cuts=[PIECE_SIZE, 2 * PIECE_SIZE], size=20)
def test_bytes_do_not_depend_on_the_chunks(
    compression: Compression, level: int | None, cuts: list[int], size: int
) -> None:
    content = bytes(range(251)) * (PIECE_SIZE // 251 // 10) * (size // 2)
    assert deflate(compression, content, cuts, level) == deflate(compression, content, [], level)


PROCESSOR_SCRIPT = """
import hashlib, sys
sys.path[:] = sys.argv[1:]
from store.compression import compressor
content = bytes(number * number // 7 % 251 for number in range(300_000))
for compression, level, portable in (
    ("gzip", None, True), ("gzip", 3, True), ("gzip", 3, False), ("gzip", 6, False), ("zstd", None, False),
    ("gzip", None, False), ("gzip", 2, False),
):
    stream = compressor(compression, level, portable=portable)
    print(hashlib.sha256(stream.compress(content) + stream.flush()).hexdigest())
"""
PORTABLE_DIGEST = "af47170e0cbbafa014b708981bb758b5da9140d485de51aff277e3f9e485c1da"
ISAL_LINES = 2
"""The last lines are of ISA-L, which is another one on processors without SSE 4.1."""


def digests(*before: str) -> list[str]:
    argv = [*before, sys.executable, "-I", "-S", "-c", PROCESSOR_SCRIPT, *sys.path]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.skipif(not Path(QEMU).exists(), reason="qemu-user, which plays other processors, is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="ISA-L's variants are compared on x86-64")
def test_bytes_do_not_depend_on_the_processor() -> None:
    """This one, one with AVX2 and no AVX-512, and one with nothing beyond SSE 3."""
    here = digests()
    assert digests(QEMU, "-cpu", "Haswell") == here
    assert digests(QEMU, "-cpu", "qemu64")[:-ISAL_LINES] == here[:-ISAL_LINES]


def test_portable_gzip_is_zlibs() -> None:
    """The bytes that Debian's zlib 1.2.13 gives on x86-64 and aarch64."""
    if "zlib-ng" in zlib.ZLIB_RUNTIME_VERSION:
        pytest.skip("this system's zlib is zlib-ng")
    stream = compressor("gzip", portable=True)
    content = bytes(number * number // 7 % 251 for number in range(300_000)) * 8
    assert hashlib.sha256(stream.compress(content) + stream.flush()).hexdigest() == PORTABLE_DIGEST


@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE])
@pytest.mark.parametrize("level", range(10))
def test_gzip_of_every_level_is_read_by_zlib(size: int, level: int) -> None:
    content = (b"layer" * (size // 5 + 1))[:size]
    data = deflate("gzip", content, [], level)
    assert gzip.decompress(data) == content


def test_gzip_header_tells_neither_time_nor_name() -> None:
    assert deflate("gzip", b"x", [])[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


@pytest.mark.parametrize(("compression", "tool"), [("gzip", "gzip"), ("zstd", "zstd")])
def test_command_line_tools_read_it(compression: Compression, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    content = bytes(range(256)) * 10_000
    data = deflate(compression, content, [])
    assert subprocess.run([tool, "-dc"], input=data, capture_output=True, check=True).stdout == content


@pytest.mark.parametrize(("compression", "level"), [("gzip", 10), ("gzip", -1), ("zstd", 0), ("zstd", 23)])
def test_levels_out_of_range_are_refused(compression: Compression, level: int) -> None:
    with pytest.raises(InvalidInput, match=f"{compression} has no compression level {level}: use"):
        compressor(compression, level)


@pytest.mark.parametrize("codec", PACKED)
def test_detects_by_magic(codec: Codec) -> None:
    assert detect(pack(codec, b"content")) == codec


@pytest.mark.parametrize(
    "prefix",
    [b"", b"\x1f", b"\x1f\x8b", b"BZhang/file", b"etc/", bytes(10)],
    ids=["empty", "1", "2", "BZh name", "name", "zeros"],
)
def test_all_else_is_uncompressed(prefix: bytes) -> None:
    assert detect(prefix) == "uncompressed"
