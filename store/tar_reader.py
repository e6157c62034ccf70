"""The tar format, second half: a stream of blocks to entries with content.

``unpack`` reads with ``Reader``. Understood are ustar, pax (extended and global), GNU long
names, base-256 numbers and GNU sparse files in all four spellings.

Everything read is hostile: each field is bounded before it is used, and names are
handed on as they came, for ``unpack`` to judge.

Spec: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final
from zlib import adler32

from image.errors import InvalidArchive
from store.tar import BLOCK, Entry, Kind

EXTENSION_LIMIT: Final = 1 << 20
"""Most bytes of one pax header, GNU long name or sparse map."""

_READ_SIZE: Final = 1 << 20
_ZERO_BLOCK: Final = bytes(BLOCK)
_ID_LIMIT: Final = (1 << 32) - 1  # (uid_t) -1 means "leave alone" to chown(2), so it is no owner
_SIZE_LIMIT: Final = 1 << 63
_MAJOR_LIMIT: Final = 1 << 12
_MINOR_LIMIT: Final = 1 << 20

_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"xgLKS"
_KINDS: Final = {kind.value[0]: kind for kind in Kind} | {0: Kind.FILE, ord("7"): Kind.FILE, _GNU_SPARSE: Kind.FILE}


class Reader:
    """Entries of a tar stream, in order, each with its content.

    ``read(n)`` gives 1 to n bytes, or ``b""`` at the end of the stream. Memory is bounded
    by ``EXTENSION_LIMIT`` and the size of what ``read`` returns.

    Bytes after the end-of-archive marker are left unread.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._view = memoryview(b"")
        self._position = 0
        self._content = 0  # stored bytes of the current entry that are still to be read
        self._padding = 0
        self._segments: Sequence[tuple[int, int]] | None = None  # of a sparse file: offset, length
        self._size = 0  # of a sparse file, holes included
        self._global: dict[bytes, bytes] = {}

    def next(self) -> Entry | None:
        """The next entry, None at the end. Content of the last one that was not copied is skipped.

        Raises InvalidArchive for a truncated stream, a wrong checksum or a field out of bounds.
        """
        self._skip(self._content + self._padding)
        extended: dict[bytes, bytes] = {}
        while (block := self._block()) is not None:
            kind = block[156]
            if kind in _KINDS:
                return self._entry(block, self._global | extended)
            payload = self._payload(block)
            if kind == _PAX:
                extended |= parse_pax(payload)
            elif kind == _PAX_GLOBAL:
                self._global |= parse_pax(payload)
            elif kind == _GNU_NAME:
                extended[b"path"] = _text(payload)
            else:
                extended[b"linkpath"] = _text(payload)
        if extended:
            raise InvalidArchive("truncated: an extended header stands before the end")
        return None

    def copy_to(self, fd: int) -> None:
        """Write the current entry's content to a new, empty file; holes stay holes."""
        if self._segments is None:
            self._copy(fd, self._content)
            return
        os.ftruncate(fd, self._size)
        for offset, length in self._segments:
            os.lseek(fd, offset, os.SEEK_SET)
            self._copy(fd, length)

    def _copy(self, fd: int, size: int) -> None:
        for piece in self._pieces(size):
            rest = piece
            while rest:
                rest = rest[os.write(fd, rest) :]

    def content(self) -> Iterator[memoryview]:
        """The current entry's content a piece at a time, holes as zeros. Each is valid until the next."""
        if self._segments is None:
            yield from self._pieces(self._content)
            return
        end = 0
        for offset, length in self._segments:
            yield from _zeros(offset - end)
            yield from self._pieces(length)
            end = offset + length
        yield from _zeros(self._size - end)

    def _pieces(self, size: int) -> Iterator[memoryview]:
        self._content -= size
        while True:
            piece = self._view[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece)
            yield piece
            if not size:
                return
            self._refill()

    def _skip(self, size: int) -> None:
        while size > len(self._view) - self._position:
            size -= len(self._view) - self._position
            self._refill()
        self._position += size
        self._content = self._padding = 0

    def _refill(self) -> None:
        piece = self._read(_READ_SIZE)
        if not piece:
            raise InvalidArchive("truncated inside an entry")
        self._view = memoryview(piece)
        self._position = 0

    def _take(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the stream."""
        end = self._position + size
        if end > len(self._view):
            pieces = [bytes(self._view[self._position :])]
            have = len(pieces[0])
            while have < size and (piece := self._read(_READ_SIZE)):
                pieces.append(piece)
                have += len(piece)
            self._view = memoryview(b"".join(pieces))
            self._position, end = 0, min(size, have)
        taken = bytes(self._view[self._position : end])
        self._position = end
        return taken

    def _block(self) -> bytes | None:
        """The next header block with a right checksum, or None at the end of the archive."""
        block = self._take(BLOCK)
        if block == _ZERO_BLOCK:
            second = self._take(BLOCK)
            if second not in (b"", _ZERO_BLOCK):
                raise InvalidArchive("a lone zero block stands between entries")
            return None
        if not block:
            return None
        if len(block) < BLOCK:
            raise InvalidArchive("truncated inside a header")
        _check_sum(block)
        return block

    def _payload(self, block: bytes) -> bytes:
        """Content of an extension header."""
        kind, size = block[156:157], parse_number(block[124:136])
        if block[156] not in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
            raise InvalidArchive(f"type {kind!r} is not supported", entry=shown(_text(block[:100])))
        if not 0 <= size <= EXTENSION_LIMIT:
            raise InvalidArchive(f"extended header of {size} bytes is over the limit of {EXTENSION_LIMIT}")
        padded = self._take(size + -size % BLOCK)
        if len(padded) < size:
            raise InvalidArchive("truncated inside an extended header")
        return padded[:size]

    def _entry(self, block: bytes, extended: dict[bytes, bytes]) -> Entry:
        """Decode ``block``, then what ``extended`` says instead, and stand before the content."""
        name = _header_name(block)
        try:
            entry = _plain_entry(block, name)
            if extended:
                entry = _extended_entry(entry, extended)
            if not 0 <= entry.size < _SIZE_LIMIT:
                raise InvalidArchive(f"size {entry.size} is out of range")
            self._content = entry.size
            self._padding = -entry.size % BLOCK
            self._segments = None
            if block[156] == _GNU_SPARSE:
                return self._sparse_entry(entry, self._old_sparse_map(block), parse_number(block[483:495]))
            if extended and entry.kind is Kind.FILE:
                return self._pax_sparse_entry(entry, extended)
            return entry
        except InvalidArchive as error:
            if error.entry is not None:
                raise
            raise InvalidArchive(error.problem, entry=shown(name)) from error

    def _pax_sparse_entry(self, entry: Entry, extended: dict[bytes, bytes]) -> Entry:
        """An entry that pax says is sparse (GNU formats 0.0, 0.1 and 1.0); others unchanged."""
        sparse_map = extended.get(b"GNU.sparse.map")
        if extended.get(b"GNU.sparse.major") == b"1":
            segments = self._sparse_map_in_content()
        elif sparse_map is not None:
            segments = _pairs([_decimal(number) for number in sparse_map.split(b",")] if sparse_map else [])
        else:
            return entry
        size = extended.get(b"GNU.sparse.realsize", extended.get(b"GNU.sparse.size", b""))
        entry = entry._replace(name=extended.get(b"GNU.sparse.name", entry.name))
        return self._sparse_entry(entry, segments, _decimal(size))

    def _sparse_entry(self, entry: Entry, segments: list[tuple[int, int]], size: int) -> Entry:
        end = 0
        for offset, length in segments:
            if offset < end or length < 0:
                raise InvalidArchive("sparse map has overlapping segments")
            end = offset + length
        if not end <= size < _SIZE_LIMIT:
            raise InvalidArchive("sparse map reaches past the end of the file")
        if sum(length for _, length in segments) != self._content:
            raise InvalidArchive("sparse map does not match the stored size")
        self._segments, self._size = segments, size
        return entry._replace(size=size)

    def _old_sparse_map(self, block: bytes) -> list[tuple[int, int]]:
        """The map of an old GNU sparse header: 4 segments, then blocks of 21."""
        fields, more, table = 4, block[482], block[386:482]
        numbers: list[int] = []
        while True:
            for start in range(0, fields * 24, 12):
                field = table[start : start + 12]
                if not field.strip(b" \0"):
                    break
                numbers.append(parse_number(field))
            if not more:
                return _pairs(numbers)
            if len(numbers) * 12 > EXTENSION_LIMIT:
                raise InvalidArchive(f"sparse map is over the limit of {EXTENSION_LIMIT} bytes")
            table = self._take(BLOCK)
            if len(table) < BLOCK:
                raise InvalidArchive("truncated inside a sparse map")
            fields, more = 21, table[504]

    def _sparse_map_in_content(self) -> list[tuple[int, int]]:
        """The map of a GNU 1.0 sparse file: decimal lines before the data, padded to a block."""
        lines: list[bytes] = []
        partial, taken = b"", 0
        while not lines or len(lines) < 1 + 2 * _decimal(lines[0]):
            if taken >= min(self._content, EXTENSION_LIMIT):
                raise InvalidArchive("sparse map is truncated or too long")
            *whole, partial = (partial + self._take(BLOCK)).split(b"\n")
            lines += whole
            taken += BLOCK
        self._content -= taken
        return _pairs([_decimal(line) for line in lines[1 : 1 + 2 * _decimal(lines[0])]])


def _zeros(size: int) -> Iterator[memoryview]:
    block = memoryview(bytes(min(size, _READ_SIZE)))
    while size > 0:
        yield block[:size]
        size -= len(block)


def parse_pax(payload: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: ``"%d %s=%s\\n" % (length, keyword, value)``.

    The repeated ``GNU.sparse.offset`` and ``numbytes`` of sparse format 0.0 are joined
    into the ``GNU.sparse.map`` of format 0.1. Raises InvalidArchive for a malformed record.
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    position = 0
    while position < len(payload):
        space = payload.find(b" ", position, position + 20)
        end = position + _decimal(payload[position:space]) if space > 0 else 0
        key, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if not (space < end <= len(payload) and equals and key and payload[end - 1 : end] == b"\n"):
            raise InvalidArchive("pax header has a malformed record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        else:
            records[key] = value
        position = end
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def parse_number(field: bytes) -> int:
    """A numeric header field: octal text, or GNU's base-256 (two's complement, high bit set)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    try:
        if text.isdigit():  # ``int`` would take signs and underscores
            return int(text, 8)
    except ValueError:
        pass
    raise InvalidArchive(f"{field!r} is not an octal number")


def _plain_entry(block: bytes, name: bytes) -> Entry:
    kind = _KINDS[block[156]]
    if block[156] == 0 and name.endswith(b"/"):  # before ustar, a slash was all that told a directory
        kind = Kind.DIRECTORY
    mode, uid, gid = _owner(block[100:124])
    return Entry(
        name=name,
        kind=kind,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime_ns=_mtime_ns(block[136:148]),
        size=parse_number(block[124:136]) if kind is Kind.FILE else 0,
        link=_text(block[157:257]) if block[157] else b"",
        device=_device(block[329:345]) if kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE) else (0, 0),
    )


def _header_name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[345] and block[257:263] == b"ustar\0":  # GNU's "ustar  " keeps other things there
        return _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500]) + b"/" + name
    return name


@lru_cache(maxsize=1024)
def _owner(fields: bytes) -> tuple[int, int, int]:
    """Mode, uid and gid. Cached: an image has few distinct ones."""
    mode = parse_number(fields[:8]) & 0o7777
    return mode, _checked_id(parse_number(fields[8:16])), _checked_id(parse_number(fields[16:24]))


@lru_cache(maxsize=1024)
def _mtime_ns(field: bytes) -> int:
    return _checked_time(parse_number(field) * 1_000_000_000)


def _device(fields: bytes) -> tuple[int, int]:
    major, minor = parse_number(fields[:8]), parse_number(fields[8:])
    if not (0 <= major < _MAJOR_LIMIT and 0 <= minor < _MINOR_LIMIT):
        raise InvalidArchive(f"device number {major}:{minor} is out of range")
    return major, minor


def _extended_entry(entry: Entry, extended: dict[bytes, bytes]) -> Entry:
    """``entry`` as its pax records correct it. An empty value takes a record back (POSIX)."""
    changes: dict[str, object] = {}
    xattrs: list[tuple[bytes, bytes]] = []
    for key, value in extended.items():
        if key.startswith(b"SCHILY.xattr."):
            name = key[13:].replace(b"%3D", b"=").replace(b"%25", b"%")
            xattrs.append((name, value))
        elif key.startswith(b"LIBARCHIVE.xattr."):
            xattrs.append((_unquoted(key[17:]), _base64(value)))
        elif value and key in _PAX_FIELDS:
            field, decode = _PAX_FIELDS[key]
            changes[field] = decode(value)
    if entry.kind is not Kind.FILE:
        changes.pop("size", None)
    unique = dict(reversed(xattrs))  # the same attribute in both spellings: SCHILY's, which comes first
    return entry._replace(**changes, xattrs=tuple(unique.items()))  # type: ignore[arg-type]


def _pax_time_ns(value: bytes) -> int:
    whole, _, fraction = value.partition(b".")
    if not (fraction.isdigit() or not fraction):
        raise InvalidArchive(f"pax time {shown(value)!r} is malformed")
    nanoseconds = int((fraction + b"000000000")[:9])
    if whole.startswith(b"-"):
        return _checked_time(-_decimal(whole[1:]) * 1_000_000_000 - nanoseconds)
    return _checked_time(_decimal(whole) * 1_000_000_000 + nanoseconds)


def _pax_id(value: bytes) -> int:
    return _checked_id(_decimal(value))


def _decimal(value: bytes) -> int:
    """A decimal number, strictly: ``int`` would take signs, spaces and underscores."""
    if not value.isdigit() or len(value) > 19:
        raise InvalidArchive(f"{shown(value[:40])!r} is not a decimal number in range")
    return int(value)


_PAX_FIELDS: Final[dict[bytes, tuple[str, Callable[[bytes], object]]]] = {
    b"path": ("name", bytes),
    b"linkpath": ("link", bytes),
    b"size": ("size", _decimal),
    b"uid": ("uid", _pax_id),
    b"gid": ("gid", _pax_id),
    b"mtime": ("mtime_ns", _pax_time_ns),
}


def _checked_id(value: int) -> int:
    if not 0 <= value < _ID_LIMIT:
        raise InvalidArchive(f"owner {value} is out of range")
    return value


def _checked_time(value_ns: int) -> int:
    if not -_SIZE_LIMIT <= value_ns < _SIZE_LIMIT:
        raise InvalidArchive(f"modification time {value_ns} ns is out of range")
    return value_ns


def _unquoted(key: bytes) -> bytes:
    from urllib.parse import unquote_to_bytes  # rare, and slow to import

    return unquote_to_bytes(key)


def _base64(value: bytes) -> bytes:
    try:
        return binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except binascii.Error as error:
        raise InvalidArchive("extended attribute is not base64") from error


def _pairs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise InvalidArchive("sparse map has an odd count of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_sum(block: bytes) -> None:
    """Compare the header checksum: the sum of all bytes, those of the field itself taken as spaces.

    Adler-32 holds 1 + that sum modulo 65521 in its low half and runs in C. What it does not
    confirm is summed in full; old tars that summed signed bytes are right too.
    """
    field = block[148:156]
    expected = parse_number(field)
    rest = expected - 8 * 32 + sum(field)
    if (adler32(block) & 0xFFFF) == (1 + rest) % 65521:
        return
    if sum(byte - 256 if byte > 127 else byte for byte in block) != rest:
        raise InvalidArchive("header checksum is wrong", entry=shown(_text(block[:100])))


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def shown(name: bytes) -> str:
    """A name for a message: never a second line, never a broken terminal."""
    return name[:200].decode("utf-8", "backslashreplace")
