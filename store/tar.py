"""The tar format, first half: what an entry is, and how one is written.

``diff`` writes with ``header``; tar_reader.py reads. Neither knows of file systems.

Written is ustar, with a pax header only where ustar cannot say it. User and group names
stay empty: only numbers mean the same on every machine.

Spec: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from zlib import adler32

BLOCK: Final = 512
END_OF_ARCHIVE: Final = bytes(2 * BLOCK)


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHAR_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


class Entry(NamedTuple):
    """One member of an archive. A tuple, because a pull makes one for each file of an image."""

    name: bytes
    """As written: perhaps absolute, empty, or full of ``..``."""
    kind: Kind
    mode: int
    """Permission, setuid, setgid and sticky bits."""
    uid: int
    gid: int
    mtime_ns: int
    size: int
    """Bytes of the file's content, holes included. 0 for what is no file."""
    link: bytes
    """Target of a symlink, or name of a hard link's first entry."""
    device: tuple[int, int]
    """Major and minor."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


PADDING: Final = tuple(bytes(-size % BLOCK) for size in range(BLOCK))
"""What fills content of a size up to the next block, indexed by ``size % BLOCK``."""

_NUMBERS: Final = b"%07o\0%07o\0%07o\0%011o\0%011o\0        %b"
_NO_LINK: Final = bytes(100)
_NO_PREFIX: Final = bytes(167)
_NO_DEVICE: Final = b"0000000\x000000000\0"
_MAGIC: Final = b"ustar\x0000" + bytes(64)
_OCTAL_7: Final = 0o7777777
_OCTAL_11: Final = 0o77777777777


def header(
    name: bytes,
    kind: Kind,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime_s: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The header blocks of one entry, the same for the same values.

    A pax header comes before it where ustar cannot hold a value: names that are long or not
    ASCII, large or negative numbers, extended attributes.
    """
    records = [_record(b"SCHILY.xattr." + _xattr_key(key), value) for key, value in xattrs]
    prefix, short = b"", name
    if len(name) > 100 or not name.isascii():
        split = _split(name)
        if split is None:
            records.append(_record(b"path", name))
            short = name[:100]
        else:
            prefix, short = split
    if link and (len(link) > 100 or not link.isascii()):
        records.append(_record(b"linkpath", link))
        link = link[:100]
    if uid > _OCTAL_7 or gid > _OCTAL_7 or size > _OCTAL_11 or not 0 <= mtime_s <= _OCTAL_11:
        large = _large_numbers(uid, gid, size, mtime_s)
        records += large
        uid, gid, size, mtime_s = (
            number if 0 <= number <= limit else 0
            for number, limit in ((uid, _OCTAL_7), (gid, _OCTAL_7), (size, _OCTAL_11), (mtime_s, _OCTAL_11))
        )
    block = b"".join(
        (
            short.ljust(100, b"\0"),
            _NUMBERS % (mode & 0o7777, uid, gid, size, mtime_s, kind.value),
            link.ljust(100, b"\0") if link else _NO_LINK,
            _MAGIC,
            _NO_DEVICE if device == (0, 0) else b"%07o\0%07o\0" % device,
            prefix.ljust(167, b"\0") if prefix else _NO_PREFIX,
        )
    )
    block = _sealed(block)
    return _pax_header(b"".join(records)) + block if records else block


def _sealed(block: bytes) -> bytes:
    """``block`` with its checksum."""
    # Exact: only name and link can hold more than ASCII, so the sum stays below Adler-32's modulus of 65521.
    total = (adler32(block) & 0xFFFF) - 1
    return b"%b%06o\0 %b" % (block[:148], total, block[156:])


def _pax_header(records: bytes) -> bytes:
    block = b"".join(
        (
            b"PaxHeaders.0/x".ljust(100, b"\0"),
            _NUMBERS % (0o644, 0, 0, len(records), 0, b"x"),
            _NO_LINK,
            _MAGIC,
            _NO_DEVICE,
            _NO_PREFIX,
        )
    )
    return _sealed(block) + records + PADDING[len(records) % BLOCK]


def _record(key: bytes, value: bytes) -> bytes:
    """One pax record; its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + 1
    while len(str(size)) + len(rest) != size:
        size = len(str(size)) + len(rest)
    return str(size).encode() + rest


def _xattr_key(key: bytes) -> bytes:
    return key.replace(b"%", b"%25").replace(b"=", b"%3D")


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """A long name as ustar's prefix (155 bytes) and name (100), if it can be cut at a slash."""
    if len(name) > 256 or not name.isascii():
        return None
    slash = name.find(b"/", len(name) - 101)
    if 0 < slash <= 155 and slash < len(name) - 1:
        return name[:slash], name[slash + 1 :]
    return None


def _large_numbers(uid: int, gid: int, size: int, mtime_s: int) -> Iterator[bytes]:
    if uid > _OCTAL_7:
        yield _record(b"uid", b"%d" % uid)
    if gid > _OCTAL_7:
        yield _record(b"gid", b"%d" % gid)
    if size > _OCTAL_11:
        yield _record(b"size", b"%d" % size)
    if not 0 <= mtime_s <= _OCTAL_11:
        yield _record(b"mtime", b"%d" % mtime_s)
