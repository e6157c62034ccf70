"""Flags: the ``--name=value`` words between a keyword and its arguments.

Raises ValueError with BuildKit's words; interpret.py adds where.

Spec: dockerfile.md 1.3, last paragraph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

from builder.dockerfile.arguments import did_you_mean
from image.value import dataclass


class FlagKind(Enum):
    """What a flag takes. Only REPEATED may be given more than once."""

    BOOLEAN = auto()
    TEXT = auto()
    REPEATED = auto()


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags that were given, by name."""

    values: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """The value of a TEXT flag; "" if it was not given."""
        return self.values.get(name, ("",))[0]

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of a REPEATED flag, in order."""
        return self.values.get(name, ())

    def boolean(self, name: str) -> bool | None:
        """A BOOLEAN flag; None if it was not given."""
        given = self.values.get(name)
        return None if given is None else given[0] == "true"


def read_flags(words: Sequence[str], kinds: Mapping[str, FlagKind]) -> Flags:
    """The flags of one instruction, which knows those in ``kinds``.

    Raises ValueError for an unknown flag (with a suggestion), a repeated one, a missing or
    unsuitable value.
    """
    values: dict[str, tuple[str, ...]] = {}
    for word in words:
        written, equals, value = word.partition("=")
        name = written[2:]
        kind = kinds.get(name)
        if kind is None:
            raise ValueError(f"unknown flag: {written}{did_you_mean(name, kinds)}")
        if name in values and kind is not FlagKind.REPEATED:
            raise ValueError(f"duplicate flag specified: {written}")
        if kind is FlagKind.BOOLEAN:
            value = _boolean(written, equals, value)
        elif not equals:
            raise ValueError(f"missing a value on flag: {written}")
        values[name] = (*values.get(name, ()), value)
    return Flags(values)


def _boolean(written: str, equals: str, value: str) -> str:
    if equals and not value:
        raise ValueError(f"missing a value on flag: {written}")
    lowered = value.lower() or "true"
    if lowered not in {"true", "false"}:
        raise ValueError(f"expecting boolean value for flag {written}, not: {value}")
    return lowered
