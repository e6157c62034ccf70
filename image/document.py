"""Strict, bounded JSON for documents from outside, and one canonical form for ours.

``Node`` walks a decoded document and names the field path of whatever is wrong, so that
an error says ``layers[2].size`` rather than ``KeyError``. Untyped values stay in here.
"""

from __future__ import annotations

from image.bare import loads
from image.errors import InvalidConfig, InvalidManifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, TypeVar

    _Problem = type[InvalidManifest | InvalidConfig]
    _T = TypeVar("_T")


MAX_DOCUMENT_SIZE = 4 << 20
"""Bytes of a manifest or config; what registries accept (distribution-spec)."""


def decode(raw: bytes, problem: _Problem) -> Node:
    """The document in ``raw``, an object. Duplicate keys and deep nesting are refused."""
    if len(raw) > MAX_DOCUMENT_SIZE:
        raise problem("", f"{len(raw)} bytes is over the limit of {MAX_DOCUMENT_SIZE}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise problem("", "a key occurs twice in one object")
        return found

    try:
        value = loads(raw, pairs=unique)
    except (ValueError, RecursionError) as error:
        raise problem("", f"not JSON ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise problem("", "not a JSON object")
    return Node(value, "", problem)


def encode(document: Mapping[str, Any]) -> bytes:
    """Compact JSON in the order given, without absent (None) members at the top level."""
    import json

    present = {key: value for key, value in document.items() if value is not None}
    return json.dumps(present, separators=(",", ":"), ensure_ascii=False).encode()


class Node:
    """One value of a document and the path that leads to it."""

    __slots__ = ("path", "problem", "value")

    def __init__(self, value: Any, path: str, problem: _Problem) -> None:
        self.value = value
        self.path = path
        self.problem = problem

    def fail(self, why: str) -> InvalidManifest | InvalidConfig:
        return self.problem(self.path, why)

    def get(self, key: str) -> Node | None:
        """The member ``key``; None when absent or null."""
        if not isinstance(self.value, dict):
            raise self.fail("not an object")
        member = self.value.get(key)
        return None if member is None else Node(member, f"{self.path}.{key}" if self.path else key, self.problem)

    def need(self, key: str) -> Node:
        member = self.get(key)
        if member is None:
            raise self.problem(f"{self.path}.{key}" if self.path else key, "missing")
        return member

    def _typed(self, kind: type[_T], name: str) -> _T:
        if not isinstance(self.value, kind) or (kind is int and isinstance(self.value, bool)):
            raise self.fail(f"not {name}")
        return self.value

    def string(self) -> str:
        return self._typed(str, "a string")

    def integer(self) -> int:
        return self._typed(int, "an integer")

    def boolean(self) -> bool:
        return self._typed(bool, "true or false")

    def items(self) -> Iterator[Node]:
        for index, value in enumerate(self._typed(list, "an array")):
            yield Node(value, f"{self.path}[{index}]", self.problem)

    def strings(self) -> tuple[str, ...]:
        return tuple(item.string() for item in self.items())

    def keys(self) -> tuple[str, ...]:
        return tuple(self._typed(dict, "an object"))

    def string_map(self) -> dict[str, str]:
        return {key: self.need(key).string() for key in self.keys()}

    def maybe_string(self, key: str) -> str:
        """A string member, or "" when absent."""
        member = self.get(key)
        return "" if member is None else member.string()
