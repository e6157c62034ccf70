"""Compression of layers and archives; the one place that names a codec.

A pull inflates here between the blob and ``unpack``; a commit compresses here between
``pack`` and the blob (see layer_blob.py for both pipelines). Codecs are imported when
first used: ISA-L and zlib for gzip, zstandard for zstd, the standard library for the
two formats that only ``ADD`` meets, bzip2 and xz.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, Protocol, assert_never

from image.errors import InvalidArchive, InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

    Codec = Compression | Literal["bzip2", "xz"]
    """What can be read. Layers are written in a ``Compression`` only."""


PREFIX_SIZE: Final = 10
"""Bytes that ``detect`` wants to see."""

PIECE_SIZE: Final = 1 << 20
"""Most bytes in one decompressed piece, and the block of our gzip."""

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_LIMIT: Final = 1 << 17
_ZSTD_LEAST_FRAME: Final = 8  # bytes in a skippable frame of nothing; others have at least 9
_GZIP_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_ISAL_LEVELS: Final = range(1, 3)
"""Not 3: what ISA-L writes there depends on whether the processor has AVX2 or AVX-512, and on uninitialised memory."""


class Decompressor(Protocol):
    """Inflates a stream given in arbitrary chunks."""

    def decompress(self, data: bytes) -> Iterator[bytes]:
        """The pieces that ``data`` completes, none empty, none over ``PIECE_SIZE``.

        Exhaust the iterator before the next call. Raises InvalidArchive for data that
        is not of this format.
        """

    def close(self) -> None:
        """Say that the stream has ended. Raises InvalidArchive when it is truncated."""


class Compressor(Protocol):
    """Compresses a stream given in arbitrary chunks.

    The result depends on the content, the level and the codec's release, never on how the
    content was cut into chunks; on the processor as ``compressor`` says.
    """

    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes:
        """End the stream; the compressor cannot be used after."""


def detect(prefix: bytes) -> Codec:
    """What a stream that starts with ``prefix`` (``PREFIX_SIZE`` bytes, if it has them) is packed with.

    Goes by magic number, as docker does, because media types and file names lie. All
    else counts as uncompressed.
    """
    if prefix.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if prefix.startswith(_ZSTD_MAGIC) or _is_skippable(prefix):
        return "zstd"
    if prefix.startswith(b"\xfd7zXZ\0"):
        return "xz"
    if prefix.startswith(b"BZh") and prefix[4:10] == b"1AY&SY":  # "BZh" alone could begin a tar's first name
        return "bzip2"
    return "uncompressed"


def decompressor(codec: Codec) -> Decompressor:
    """A decompressor for one stream. Repeated gzip members and zstd frames count as one stream."""
    match codec:
        case "uncompressed":
            return _Plain()
        case "gzip":
            from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

            return _Members(codec, functools.partial(IgzipDecompressor, DECOMP_GZIP), IsalError)  # type: ignore[arg-type]  # wrong stub
        case "zstd":
            return _ZstdFrames()
        case "bzip2":
            import bz2

            return _Members(codec, bz2.BZ2Decompressor, OSError)
        case "xz":
            import lzma

            limited = functools.partial(lzma.LZMADecompressor, memlimit=256 << 20)
            return _Members(codec, limited, lzma.LZMAError)
        case _:
            assert_never(codec)


def inflated(blocks: Iterable[bytes]) -> Callable[[int], bytes]:
    """``read(n)`` of what a stream holds, whatever it is packed with; at most n bytes a call, b"" at its end.

    The first block has ``PREFIX_SIZE`` bytes, unless the stream is shorter. Memory stays flat
    however much a block inflates to. Raises InvalidArchive for a damaged or truncated stream.
    """
    pieces = _inflated(iter(blocks))
    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        if not rest:
            rest = memoryview(next(pieces, b""))
        piece, rest = rest[:size], rest[size:]
        return bytes(piece)

    return read


def _inflated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(blocks, b"")
    codec = decompressor(detect(first[:PREFIX_SIZE]))
    yield from codec.decompress(first)
    for block in blocks:
        yield from codec.decompress(block)
    codec.close()


def compressor(compression: Compression, level: int | None = None, *, portable: bool = False) -> Compressor:
    """A compressor for one stream.

    ``level`` is 0 to 9 for gzip (1 if None; 1 and 2 are ISA-L's, several times faster than
    zlib's) and 1 to 22 for zstd (3 if None). Raises InvalidInput for another level.

    The bytes of zlib and zstd are the same on every processor. ISA-L's are the same on those of x86-64
    with SSE 4.1, and others on older ones and on other architectures; a ``portable`` stream does without.
    """
    match compression:
        case "uncompressed":
            return _Plain()
        case "gzip":
            checked = _checked(compression, 1 if level is None else level, range(10))
            return _GzipBlocks(checked, with_isal=checked in _ISAL_LEVELS and not portable)
        case "zstd":
            import zstandard

            zstd_level = _checked(compression, 3 if level is None else level, range(1, 23))
            return zstandard.ZstdCompressor(level=zstd_level).compressobj()
        case _:
            assert_never(compression)


def _checked(compression: Compression, level: int, allowed: range) -> int:
    if level not in allowed:
        raise InvalidInput(f"{compression} has no compression level {level}: use {allowed[0]} to {allowed[-1]}")
    return level


def _bounded(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_SIZE] for start in range(0, len(data), PIECE_SIZE))


class _Plain:
    """No compression, in both directions."""

    def decompress(self, data: bytes) -> Iterator[bytes]:
        return _bounded(data)

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

    def close(self) -> None:
        return None


class _Decoder(Protocol):
    """What the decompressors of ISA-L, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Members:
    """A format whose streams may follow each other: gzip members, bzip2 and xz streams.

    Zero bytes after a member are padding to a tape block and are ignored, as gzip(1)
    does; anything else there has to be another member.
    """

    def __init__(self, codec: Codec, start: Callable[[], _Decoder], failure: type[Exception]) -> None:
        self._codec = codec
        self._start = start
        self._failure = failure
        self._decoder = start()

    def decompress(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._decoder.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._decoder = self._start()
            yield from self._member(data)
            data = self._decoder.unused_data if self._decoder.eof else b""

    def _member(self, data: bytes) -> Iterator[bytes]:
        """The pieces of one member, each held to a size so that a bomb cannot fill the memory."""
        while True:
            try:
                piece = self._decoder.decompress(data, PIECE_SIZE)
            except self._failure as error:
                raise InvalidArchive(f"{self._codec} stream is damaged: {error}") from error
            if piece:
                yield piece
            if self._decoder.eof or self._decoder.needs_input:
                return
            data = b""

    def close(self) -> None:
        if not self._decoder.eof:
            raise InvalidArchive(f"{self._codec} stream is truncated")


class _ZstdFrames:
    """zstd frames, skippable ones included.

    The library puts no limit on what one call returns, and a block of 4 bytes can hold
    128 KiB. So the stream is cut between blocks, and a call gets as many as one piece can hold.

    Spec: RFC 8878, "Zstandard Frames" and "Blocks".
    """

    def __init__(self) -> None:
        import zstandard

        self._zstandard = zstandard
        self._library = zstandard.ZstdDecompressor()
        self._frame = self._library.decompressobj()
        self._pending = b""
        self._passing = 0  # bytes of a frame header or a skippable frame that are still to come
        self._in_frame = False
        self._checksum_size = 0

    def decompress(self, data: bytes) -> Iterator[bytes]:
        data = self._pending + data
        start = 0
        while (end := self._cut(data, start)) > start:
            if piece := self._inflate(data[start:end]):
                yield piece
            start = end
        self._pending = data[start:]

    def _inflate(self, data: bytes) -> bytes:
        if self._frame.eof:
            self._frame = self._library.decompressobj()
        try:
            return self._frame.decompress(data)
        except self._zstandard.ZstdError as error:
            raise InvalidArchive(f"zstd stream is damaged: {error}") from error

    def _cut(self, data: bytes, start: int) -> int:
        """Where what can be passed on at ``start`` ends; ``start`` when more is needed to tell."""
        if not self._passing and not self._in_frame:
            self._begin_frame(data[start : start + _ZSTD_LEAST_FRAME])
        if self._passing:
            size = min(self._passing, len(data) - start)
            self._passing -= size
            return start + size
        return self._cut_blocks(data, start) if self._in_frame else start

    def _begin_frame(self, head: bytes) -> None:
        if len(head) < _ZSTD_LEAST_FRAME:
            return
        if _is_skippable(head):
            self._passing = 8 + int.from_bytes(head[4:8], "little")
        elif head.startswith(_ZSTD_MAGIC):
            self._passing = self._zstandard.frame_header_size(head)
            self._checksum_size = 4 if head[4] & 4 else 0
            self._in_frame = True
        else:
            raise InvalidArchive("zstd stream is damaged: a frame does not start as one")

    def _cut_blocks(self, data: bytes, start: int) -> int:
        end = start
        for _ in range(PIECE_SIZE // _ZSTD_BLOCK_LIMIT):
            head = int.from_bytes(data[end : end + 3], "little")
            last, repeated, size = head & 1, (head >> 1) & 3 == 1, head >> 3
            if size > _ZSTD_BLOCK_LIMIT:
                raise InvalidArchive("zstd stream is damaged: a block is too large")
            block_end = end + 3 + (1 if repeated else size) + (self._checksum_size if last else 0)
            if block_end > len(data):
                break
            end = block_end
            if last:
                self._in_frame = False
                break
        return end

    def close(self) -> None:
        if self._passing or self._in_frame or self._pending or not self._frame.eof:
            raise InvalidArchive("zstd stream is truncated")


def _is_skippable(head: bytes) -> bool:
    return head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5


class _Deflater(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


class _GzipBlocks:
    """One gzip member made of raw deflate blocks of exactly ``PIECE_SIZE`` content bytes.

    ISA-L's output depends on how its input is cut, so the cut is fixed here. Each block
    starts afresh and ends on a byte boundary (SYNC_FLUSH): the bytes would be the same
    if several threads compressed them. The header has neither time nor name.
    """

    def __init__(self, level: int, *, with_isal: bool) -> None:
        import zlib

        from isal import isal_zlib

        self._start: Callable[[int, int, int], _Deflater]
        self._start = isal_zlib.compressobj if with_isal else zlib.compressobj
        self._crc32 = isal_zlib.crc32
        self._level = level
        self._crc = 0
        self._size = 0
        self._pending: list[bytes] = [b""]
        self._pending_size = 0
        self._header = _GZIP_HEADER

    def compress(self, data: bytes) -> bytes:
        self._crc = self._crc32(data, self._crc)
        self._size += len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size < PIECE_SIZE:
            return b""
        return self._whole_blocks()

    def _whole_blocks(self) -> bytes:
        from zlib import Z_SYNC_FLUSH

        content = b"".join(self._pending)
        rest = len(content) % PIECE_SIZE
        view = memoryview(content)
        blocks = [self._take_header()]
        for start in range(0, len(content) - rest, PIECE_SIZE):
            blocks += self._block(view[start : start + PIECE_SIZE], Z_SYNC_FLUSH)
        self._pending = [content[len(content) - rest :]]
        self._pending_size = rest
        return b"".join(blocks)

    def _block(self, content: bytes | memoryview, mode: int) -> tuple[bytes, bytes]:
        deflater = self._start(self._level, 8, -15)
        return deflater.compress(content), deflater.flush(mode)  # type: ignore[arg-type]  # takes any buffer

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def flush(self) -> bytes:
        from zlib import Z_FINISH

        last = self._block(b"".join(self._pending), Z_FINISH)
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return b"".join((self._take_header(), *last, trailer))
