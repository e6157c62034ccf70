"""Glob patterns as Go has them, compiled to regular expressions.

COPY's sources follow ``filepath.Match``; ignore files add ``**``. Both share the syntax
inside a path segment: ``*``, ``?``, ``[a-z]``, ``[^a]`` and ``\\`` to escape.

A build of which nothing changed compiles none, so ``re`` is imported by who does.
"""

from __future__ import annotations

import posixpath
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

_WILDCARD = r"(?s)(?:\\.|[^*?[\\])*[*?[]"
_MAX_STARS = 8


def clean(path: str) -> str:
    """The shortest spelling of a path, as Go's ``path.Clean``."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern can match more than one path."""
    import re

    return re.match(_WILDCARD, pattern) is not None


def unescaped(pattern: str) -> str:
    """The one path that a pattern without wildcards matches."""
    import re

    return re.sub(r"(?s)\\(.)", r"\1", pattern)


@lru_cache(maxsize=256)
def segment(pattern: str) -> re.Pattern[str]:
    """A whole-name matcher for one path segment. Raises ValueError for bad syntax."""
    import re

    return re.compile(_segment(pattern) + r"\Z", re.DOTALL)


def path_expression(pattern: str) -> str:
    """The regular expression of a path pattern with ``**``; a segment's end must follow it.

    A ``**`` that is a whole segment crosses any number of directories. What stands between
    two of them is placed as early as possible, atomically: that never prevents a match,
    and no pattern takes exponential time. Raises ValueError for bad syntax.
    """
    parts = pattern.split("/")
    if any("**" in part and part != "**" for part in parts):
        return _mixed(pattern)
    groups: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            groups.append([])
        else:
            groups[-1].append(_segment(part))
    first, *rest = groups
    if not rest:
        return "/".join(first)
    *middle, last = rest
    out = [f"{name}/" for name in first]
    out += [f"(?>(?:.*?/)??{'/'.join(group)}/)" for group in middle if group]
    out.append(f"(?:.*?/)??{'/'.join(last)}" if last else ".*")
    return "".join(out)


def _segment(pattern: str) -> str:
    """One segment; the text between two stars is placed early and atomically, as above."""
    first, *rest = _chunks(pattern)
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle if chunk) + f"[^/]*{last}"


def _chunks(pattern: str) -> list[str]:
    """The regular expressions between the stars of a segment."""
    chunks = [""]
    position = 0
    while position < len(pattern):
        char, position = _take(pattern, position)
        if char == "*":
            chunks.append("")
        else:
            expression, position = _single(pattern, char, position)
            chunks[-1] += expression
    return chunks


def _single(pattern: str, char: str, position: int) -> tuple[str, int]:
    """What stands for one character: itself, ``?``, a class or an escape."""
    if char == "?":
        return "[^/]", position
    if char == "[":
        return _class(pattern, position)
    if char == "\\":
        char, position = _take(pattern, position)
    import re

    return re.escape(char), position


def _mixed(pattern: str) -> str:
    """A pattern with ``**`` beside other text in a segment, as moby reads it: ``**.log``, ``a**/b``.

    It may backtrack, so the number of stars is limited.
    """
    if pattern.count("*") > _MAX_STARS:
        raise ValueError(f'more than {_MAX_STARS} stars in a pattern that has "**" inside a name')
    if pattern.startswith("**") and not has_wildcard(pattern[2:]) and "\\" not in pattern:
        import re

        return ".*" + re.escape(pattern[2:])  # matched against the end of the whole path
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char, position = _take(pattern, position)
        if char == "*" and pattern.startswith("*", position):
            position += 2 if pattern.startswith("/", position + 1) else 1
            out.append("(?:.*/)?" if position < len(pattern) else ".*")
        elif char == "*":
            out.append("[^/]*")
        else:
            expression, position = _single(pattern, char, position)
            out.append(expression)
    return "".join(out)


def _class(pattern: str, position: int) -> tuple[str, int]:
    """A bracket expression, from just behind its ``[``. It never matches a slash."""
    import re

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
        return f"[^/{''.join(ranges)}]", position
    return f"(?!/)[{''.join(ranges)}]" if ranges else "(?!)", position


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
