"""Tar archives from tables: proper ones by the standard library, malformed ones block by block."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from typing import Literal

Dialect = Literal[0, 1, 2]
"""tarfile.USTAR_FORMAT, GNU_FORMAT or PAX_FORMAT."""

_TYPES = {
    "file": tarfile.REGTYPE, "link": tarfile.LNKTYPE, "symlink": tarfile.SYMTYPE, "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE, "directory": tarfile.DIRTYPE, "fifo": tarfile.FIFOTYPE,
}  # fmt: skip


def archive(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def reader(data: bytes, piece: int = 1 << 20) -> Callable[[int], bytes]:
    """A ``read`` that gives ``data`` in pieces of at most ``piece`` bytes."""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        start = position
        position += min(size, piece)
        return data[start : start + min(size, piece)]

    return read


def member(
    name: str,
    kind: str = "file",
    content: bytes = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: float = 0,
    link: str = "",
    device: tuple[int, int] = (0, 0),
    pax: Mapping[str, str] | None = None,
    dialect: Dialect = tarfile.PAX_FORMAT,
) -> bytes:
    """One entry as tarfile writes it, content and padding included."""
    info = tarfile.TarInfo(name)
    info.type = _TYPES[kind]
    info.size = len(content)
    info.mode, info.uid, info.gid, info.mtime = mode, uid, gid, mtime
    info.linkname = link
    info.devmajor, info.devminor = device
    info.pax_headers = dict(pax or {})
    return info.tobuf(dialect, "utf-8", "surrogateescape") + padded(content)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def raw(name: bytes, typeflag: bytes = b"0", content: bytes = b"", *, seal: bool = True, **fields: bytes) -> bytes:
    """One entry with header fields exactly as given: mode, uid, gid, size, mtime, link, magic, major, minor, prefix."""
    block = bytearray(512)
    values = {
        "mode": b"0000644", "uid": b"0000000", "gid": b"0000000", "size": b"%011o" % len(content),
        "mtime": b"00000000000", "link": b"", "magic": b"ustar\x0000", "major": b"", "minor": b"", "prefix": b"",
    } | fields  # fmt: skip
    block[0 : len(name)] = name
    block[156:157] = typeflag
    for field, start in {
        "mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "link": 157, "magic": 257,
        "major": 329, "minor": 337, "prefix": 345,
    }.items():  # fmt: skip
        block[start : start + len(values[field])] = values[field]
    return seal_block(block) + padded(content) if seal else bytes(block) + padded(content)


def seal_block(block: bytearray) -> bytes:
    """``block`` with its checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: tuple[bytes, bytes], typeflag: bytes = b"x") -> bytes:
    """A pax header that goes before an entry."""
    return raw(b"PaxHeaders/x", typeflag, b"".join(pax_record(key, value) for key, value in records))


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while len(rest) + len(str(size)) != size:
        size = len(rest) + len(str(size))
    return str(size).encode() + rest
