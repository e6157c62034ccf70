"""Semantic versions of tags, and the ranges that choose among them.

Tags are read leniently (``v1.2`` is 1.2.0), as the tools that made these ranges known do. A
pre-release is in a range only if the range names one.

    range       = alternative ("||" alternative)*
    alternative = VERSION " - " VERSION | comparison (("," | " ") comparison)*
    comparison  = ("=" | "!=" | ">" | "<" | ">=" | "<=" | "~" | "^")? VERSION, with x, X or * for any number

Spec: semver.org 2.0.0; Masterminds/semver, "Checking Version Constraints".
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from image.errors import InvalidInput

_VERSION: Final = re.compile(
    r"v?(?P<major>\d{1,18})(?:\.(?P<minor>\d{1,18}))?(?:\.(?P<patch>\d{1,18}))?"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_NUMBER: Final = r"(?:\d{1,18}|[xX*])"
_COMPARISON: Final = re.compile(
    rf"(?P<sign>!=|>=|=>|<=|=<|=|>|<|~>|~|\^)?\s*v?(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER}))?(?:\.(?P<patch>{_NUMBER}))?"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?(?:\s*,\s*|\s+|$)"
)
_HYPHENS: Final = re.compile(r"\s*(\S+)\s+-\s+(\S+)\s*")
_Release = tuple[int, int, int]


class Version(NamedTuple):
    """Compares by precedence: a pre-release comes before its release."""

    release: _Release
    is_release: bool = True
    pre: tuple[tuple[bool, int, str], ...] = ()
    """Of each identifier: whether it is a word, its number, its text. Numbers come before words."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The version that a tag says; None when it says none."""
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        release = (int(match["major"]), int(match["minor"] or 0), int(match["patch"] or 0))
        return cls(release, match["pre"] is None, _identifiers(match["pre"]))


def _identifiers(text: str | None) -> tuple[tuple[bool, int, str], ...]:
    words = text.split(".") if text else []
    return tuple((False, int(word), "") if word.isdecimal() else (True, 0, word) for word in words)


class _Bounds(NamedTuple):
    """From ``low`` to below ``high``; None is without end. ``names_pre``: pre-releases may be in it."""

    low: Version | None
    high: Version | None
    inverted: bool = False
    names_pre: bool = False
    high_included: bool = False
    low_excluded: bool = False

    def __contains__(self, version: object) -> bool:
        assert isinstance(version, Version)
        above = self.low is None or version > self.low or (version == self.low and not self.low_excluded)
        below = self.high is None or version < self.high or (version == self.high and self.high_included)
        return (above and below) != self.inverted


class Range:
    """A set of versions, from its text. Raises InvalidInput."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._alternatives = [_alternative(part, text) for part in text.split("||")]

    def __contains__(self, version: object) -> bool:
        assert isinstance(version, Version)
        return any(
            all(version in bounds for bounds in every) and (version.is_release or any(b.names_pre for b in every))
            for every in self._alternatives
        )


def _alternative(part: str, text: str) -> tuple[_Bounds, ...]:
    if hyphens := _HYPHENS.fullmatch(part):
        part = f">={hyphens[1]} <={hyphens[2]}"
    rest, found = part.strip(), []
    while rest:
        match = _COMPARISON.match(rest)
        if match is None:
            raise InvalidInput(f"{text!r} is no range of versions: write for example '>=1.2 <2 || ~3.1'")
        found.append(_bounds(match))
        rest = rest[match.end() :]
    if not found:
        raise InvalidInput(f"{text!r} is no range of versions: a part of it is empty")
    return tuple(found)


def _bounds(match: re.Match[str]) -> _Bounds:
    """One comparison as an interval. ``known`` numbers are those before the first placeholder."""
    numbers = [match[name] for name in ("major", "minor", "patch")]
    known = [int(number) for number in _known(numbers)]
    low = Version((*known, *(0,) * (3 - len(known))), match["pre"] is None, _identifiers(match["pre"]))  # type: ignore[arg-type]  # three
    names_pre = match["pre"] is not None
    sign = {"=>": ">=", "=<": "<=", "~>": "~", None: "="}.get(match["sign"], match["sign"])
    after = _next(known, len(known)) if known else None
    exact = len(known) == 3
    if not known and sign != "!=":
        return _Bounds(None, None)
    match sign:
        case ">=":
            return _Bounds(low, None, names_pre=names_pre)
        case ">":
            return _Bounds(low, None, low_excluded=True, names_pre=names_pre) if exact else _Bounds(after, None)
        case "<":
            return _Bounds(None, low, names_pre=names_pre)
        case "<=":
            return _Bounds(None, low, high_included=True, names_pre=names_pre) if exact else _Bounds(None, after)
        case "~":
            return _Bounds(low, _next(known, min(len(known), 2)), names_pre=names_pre)
        case "^":
            return _Bounds(low, _next(known, _leading(known)), names_pre=names_pre)
        case _:
            inverted = sign == "!="
            if exact:
                return _Bounds(low, low, inverted, names_pre, high_included=True)
            return _Bounds(low if known else None, after, inverted, names_pre)


def _known(numbers: list[str | None]) -> list[str]:
    for position, number in enumerate(numbers):
        if number is None or not number.isdecimal():
            return [known for known in numbers[:position] if known]
    return [known for known in numbers if known]


def _leading(known: list[int]) -> int:
    """How many numbers ``^`` keeps: to the first that is not zero."""
    return next((position for position, number in enumerate(known, start=1) if number), len(known))


def _next(known: list[int], keep: int) -> Version:
    """The first version after all that begin with the first ``keep`` numbers."""
    numbers = [*known[: keep - 1], known[keep - 1] + 1, 0, 0, 0][:3]
    return Version((numbers[0], numbers[1], numbers[2]), is_release=False)
