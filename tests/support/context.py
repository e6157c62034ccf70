"""Write a build context from a table, so that a case shows its files next to its Dockerfile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class File:
    text: str = "content\n"
    mode: int = 0o644
    xattrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Directory:
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Symlink:
    target: str


Entry = File | Directory | Symlink


def write_context(directory: Path, entries: Mapping[str, Entry]) -> Path:
    """Make ``entries`` below ``directory``; parents that are not named get mode 0755."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, entry in entries.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case File():
                path.write_text(entry.text)
                path.chmod(entry.mode)
                for key, value in entry.xattrs.items():
                    os.setxattr(path, key, value.encode())
            case Directory():
                path.mkdir(exist_ok=True)
                path.chmod(entry.mode)
            case Symlink():
                path.symlink_to(entry.target)
    return directory
