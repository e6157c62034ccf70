"""What the layers of a saved image hold, without times and content."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

Entry = tuple[bytes, int, int, int, str, int, int, str | None]


def layer_entries(archive: Path) -> list[dict[str, Entry]]:
    """Each layer's entries by name: type, mode, owner, group, link, device numbers, file capabilities."""
    with tarfile.open(archive) as outer:
        names = json.loads(_read(outer, "manifest.json"))[0]["Layers"]
        return [_entries(_read(outer, name)) for name in names]


def _read(outer: tarfile.TarFile, name: str) -> bytes:
    file = outer.extractfile(name)
    assert file is not None
    return file.read()


def _entries(data: bytes) -> dict[str, Entry]:
    plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return {
            one.name: (
                one.type, one.mode, one.uid, one.gid, one.linkname, one.devmajor, one.devminor,
                one.pax_headers.get("SCHILY.xattr.security.capability"),
            )
            for one in tar
        }  # fmt: skip
