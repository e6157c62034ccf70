"""A range of lines in a named text, so that an error can show its source."""

from __future__ import annotations

from image.value import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Lines ``start`` to ``end`` of ``file``, both counted from 1 and inclusive."""

    file: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 1 <= self.start <= self.end:
            raise ValueError(f"span {self.start}-{self.end} is not a range of lines")

    def __str__(self) -> str:
        return f"{self.file}:{self.start}"

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(self.file, min(self.start, other.start), max(self.end, other.end))
