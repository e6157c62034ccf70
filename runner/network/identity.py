"""Ids of the networks that are always there: they follow from the runtime directory, so nothing keeps them."""

from __future__ import annotations

from binascii import crc32  # part of the interpreter, unlike zlib

from image.paths import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

WITHOUT_BRIDGE: Final = {"host": ("host", 1), "none": ("null", 2)}
"""Driver and number of each."""


def default_id(root: Path) -> str:
    """Of the default network."""
    return _numbered(root, 0)


def id_without_bridge(root: Path, name: str) -> str:
    """Of ``host`` or ``none``."""
    return _numbered(root, WITHOUT_BRIDGE[name][1])


def _numbered(root: Path, number: int) -> str:
    return f"{crc32(bytes(root)):08x}{crc32(bytes(root)[::-1]):08x}{number:048x}"
