"""Glob patterns as Go has them, compiled to regular expressions.

COPY's sources follow ``filepath.Match``; ignore files add ``**``. Both share the syntax
inside a path segment: ``*``, ``?``, ``[a-z]``, ``[^a]`` and ``\\`` to escape.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache

_WILDCARD = re.compile(r"(?:\\.|[^*?[\\])*+[*?[]", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def clean(path: str) -> str:
    """The shortest spelling of a path, as Go's ``path.Clean``."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern can match more than one path."""
    return _WILDCARD.match(pattern) is not None


def unescaped(pattern: str) -> str:
    """The one path that a pattern without wildcards matches."""
    return _ESCAPED.sub(r"\1", pattern)


@lru_cache(maxsize=256)
def segment(pattern: str) -> re.Pattern[str]:
    """A whole-name matcher for one path segment. Raises ValueError for bad syntax."""
    return re.compile(translate(pattern) + r"\Z", re.DOTALL)


def translate(pattern: str, *, double_star: bool = False) -> str:
    """The regular expression of a pattern, not anchored.

    With ``double_star``, ``**`` crosses any number of directories. Raises ValueError.
    """
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and double_star and pattern.startswith("*", position):
            position, expression = _double_star(pattern, position + 1, first=not out)
            out.append(expression)
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            position, expression = _class(pattern, position)
            out.append(expression)
        else:
            if char == "\\":
                char, position = _take(pattern, position)
            out.append(re.escape(char))
    return "".join(out)


def _double_star(pattern: str, position: int, *, first: bool) -> tuple[int, str]:
    """What ``**`` stands for, from just behind it."""
    slash = pattern.startswith("/", position)
    if slash:
        position += 1
    rest = pattern[position:]
    if not rest:
        return position, ".*"
    if first and not slash and not has_wildcard(rest) and "\\" not in rest:
        return position, ".*"  # moby matches "**.log" against the end of the whole path
    return position, "(?:.*/)?"


def _class(pattern: str, position: int) -> tuple[int, str]:
    """A bracket expression, from just behind its ``[``. It never matches a slash."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    empty = True
    while not pattern.startswith("]", position) or empty:
        empty = False
        low, position = _class_char(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_char(pattern, position + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    position += 1
    if negated:
        return position, f"[^/{''.join(ranges)}]"
    return position, f"(?!/)[{''.join(ranges)}]" if ranges else "(?!)"


def _class_char(pattern: str, position: int) -> tuple[str, int]:
    char, position = _take(pattern, position)
    if char in "-]":
        raise ValueError("syntax error in pattern")
    if char == "\\":
        char, position = _take(pattern, position)
    return char, position


def _take(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern):
        raise ValueError("syntax error in pattern")
    return pattern[position], position + 1
