"""Members of a configuration as Python values: absent ones, lists, numbers in their bounds."""

from __future__ import annotations

from types import MappingProxyType

from image.document import Node
from runner.runtime.spec import no_strings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from runner.runtime.spec import StringMap

    _T = TypeVar("_T")


def each(node: Node, key: str, read: Callable[[Node], _T]) -> tuple[_T, ...]:
    member = node.get(key)
    return tuple(read(item) for item in member.items()) if member else ()


def optional(node: Node, key: str, read: Callable[[Node], _T]) -> _T | None:
    member = node.get(key)
    return read(member) if member else None


def strings(node: Node, key: str) -> tuple[str, ...]:
    member = node.get(key)
    found = member.strings() if member else ()
    if member and any("\0" in text for text in found):
        raise member.fail("contains a NUL")
    return found


def string_map(node: Node, key: str) -> StringMap:
    member = node.get(key)
    return MappingProxyType(member.string_map()) if member else no_strings()


def flag(node: Node, key: str) -> bool:
    return optional(node, key, Node.boolean) or False


def integer(node: Node, key: str) -> int | None:
    return optional(node, key, Node.integer)


def unsigned(node: Node, key: str, default: int = 0, bits: int = 32) -> int:
    value = integer(node, key)
    return default if value is None else bounded(node.need(key), value, bits)


def bounded(node: Node, value: int, bits: int = 32) -> int:
    """``value``, which ``node`` holds. Raises InvalidSpec."""
    if not 0 <= value < 1 << bits:
        raise node.fail(f"not an unsigned number of {bits} bits")
    return value
