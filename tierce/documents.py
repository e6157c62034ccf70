"""The values that documents for users are made of: what JSON has, and two things of Go's.

A ``Record`` is a struct: it has the fields it has, in their order. ``Nil`` is a typed
nothing: ``null`` as JSON, ``[]`` or ``map[]`` when a template prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final


class Record(dict[str, Any]):
    """Go's struct: asking a template for a field that it does not have is an error; a map gives nothing."""

    json_names: ClassVar[Mapping[str, str]] = {}
    """How fields are called in JSON that templates know by another name; they are left out when they are empty."""


class Nil:
    """A typed nothing: false, and empty when counted or ranged over."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())


NIL_LIST: Final = Nil("[]")
NIL_MAP: Final = Nil("map[]")
