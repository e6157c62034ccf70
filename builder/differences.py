"""What two builds of the same thing did not have in common, as lines for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from image.value import dataclass

_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a layer says of one file. ``content`` is a digest, "" for what has none; ``owner`` is uid:gid."""

    type: str
    mode: str
    owner: str
    size: int
    mtime: str
    link: str
    xattrs: str
    content: str


def layer_differences(first: Mapping[str, FileFacts], second: Mapping[str, FileFacts]) -> Iterator[str]:
    """``path: fact FIRST != SECOND``, and files that only one of them has."""
    for path in sorted(first.keys() | second.keys()):
        if path not in second:
            yield f"{path}: only in the first build"
        elif path not in first:
            yield f"{path}: only in the second build"
        elif first[path] != second[path]:
            yield f"{path}: " + ", ".join(_facts(first[path], second[path]))


def order_difference(first: Mapping[str, FileFacts], second: Mapping[str, FileFacts]) -> str:
    """Layers with the same files may still list them in another order. "" when they do not."""
    return "" if list(first) == list(second) else "the same files in another order"


def _facts(first: FileFacts, second: FileFacts) -> Iterator[str]:
    for one in fields(FileFacts):
        before, after = getattr(first, one.name), getattr(second, one.name)
        if before != after:
            yield f"{one.name} {before or 'none'} != {after or 'none'}"


def config_differences(first: bytes, second: bytes) -> Iterator[str]:
    """``config.Env[2]: FIRST != SECOND`` for every member that differs."""
    yield from _members(json.loads(first), json.loads(second), "")


def _members(first: Any, second: Any, path: str) -> Iterator[str]:
    if first == second:
        return
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from _members(first.get(key), second.get(key), f"{path}.{key}" if path else key)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _members(one, other, f"{path}[{place}]")
    else:
        yield f"{path}: {_shown(first)} != {_shown(second)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "\u2026"
