"""The functions that templates call: Go's own, and those that docker adds.

A function raises ``CallError`` with the bare problem; the caller adds the place.
``and`` and ``or`` are evaluated in ``execute``, as they stop at the first answer.
"""

from __future__ import annotations

import html as html_text
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from tierce.cli.templates.printing import sprint, sprintf, sprintln, to_json, type_name
from tierce.documents import Nil

Function: TypeAlias = Callable[..., Any]
Entry: TypeAlias = tuple[Function, int, int | None]
"""A function, and how many arguments it takes at least and at most."""
MoreFunctions: TypeAlias = Mapping[str, Entry]
NONE: Final[MoreFunctions] = {}
_MAX_PADDING: Final = 1_000_000


class CallError(Exception):
    """A function can't work with what it was given."""


class Method:
    """A value that is called where it has arguments: ``{{time.Now.Format "2006"}}``."""

    def __init__(self, function: Function) -> None:
        self.call = function


def truth(value: Any) -> bool:
    """Go's idea of true: neither zero nor empty."""
    return bool(value)


def call(name: str, arguments: list[Any], more: MoreFunctions = NONE) -> Any:
    """The result of a function, of ``more`` first. Raises CallError."""
    entry = more.get(name) or FUNCTIONS.get(name)
    if entry is None:
        raise CallError("the function is not defined here")
    function, least, most = entry
    if len(arguments) < least or (most is not None and len(arguments) > most):
        wanted = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        raise CallError(f"wrong number of arguments for {name}: want {wanted}, got {len(arguments)}")
    return function(*arguments)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CallError(f"wrong type for value: expected string, got {type_name(value)}")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CallError(f"wrong type for value: expected integer, got {type_name(value)}")
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = _element(value, key)
    return value


def _element(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        found = value.get(_text(key))
        strings = value and all(isinstance(item, str) for item in value.values())
        return "" if found is None and strings else found
    if isinstance(value, list | str):
        position = _integer(key)
        if not 0 <= position < len(value):
            raise CallError(f"index out of range: {position}")
        return ord(value[position]) if isinstance(value, str) else value[position]
    if isinstance(value, Nil):
        if str(value) == "map[]":
            return ""
        raise CallError(f"index out of range: {key}")
    raise CallError("index of untyped nil" if value is None else f"can't index item of type {type_name(value)}")


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, list | str):
        raise CallError(f"can't slice item of type {type_name(value)}")
    start, end = ([_integer(bound) for bound in bounds] + [0, len(value)][len(bounds) :])[:2]
    if not 0 <= start <= end <= len(value):
        raise CallError(f"index out of range: {start}:{end}")
    return value[start:end]


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if not isinstance(value, list | dict | Nil):
        raise CallError(f"len of {'nil pointer' if value is None else f'type {type_name(value)}'}")
    return len(value)


def _join(items: Any, separator: Any) -> str:
    if not isinstance(items, list | Nil):
        raise CallError(f"wrong type for value: expected []string, got {type_name(items)}")
    return _text(separator).join(_text(item) for item in items)


def _split(text: Any, separator: Any) -> list[str]:
    return _text(text).split(_text(separator)) if separator else list(_text(text))


def _title(text: Any) -> str:
    return re.sub(r"(?<!\w)\w", lambda match: match.group().upper(), _text(text))


def _pad(text: Any, before: Any, after: Any) -> str:
    spaces = [_integer(before), _integer(after)]
    if not all(0 <= count <= _MAX_PADDING for count in spaces):
        raise CallError("padding out of range")
    return " " * spaces[0] + text + " " * spaces[1] if _text(text) else ""


def _truncate(text: Any, length: Any) -> str:
    if _integer(length) < 0:
        raise CallError(f"length out of range: {length}")
    return _text(text)[:length]


def _comparable(one: Any, other: Any) -> None:
    kinds = {_kind(one), _kind(other)}
    if len(kinds) > 1 and "nil" not in kinds:
        raise CallError("incompatible types for comparison")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int() | float() | str():
            return type_name(value)
        case _:
            raise CallError("non-comparable type " + type_name(value))


def _equal(one: Any, *others: Any) -> bool:
    for other in others:
        _comparable(one, other)
    return any(one == other for other in others)


def _ordered(compare: Callable[[Any, Any], bool], one: Any, other: Any) -> bool:
    _comparable(one, other)
    if isinstance(one, bool) or one is None or other is None:
        raise CallError("invalid type for comparison")
    return compare(one, other)


def _less(one: Any, other: Any) -> bool:
    return bool(one < other)


def _less_or_equal(one: Any, other: Any) -> bool:
    return bool(one <= other)


def _html(*values: Any) -> str:
    return html_text.escape(sprint(values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus  # rarely called

    return quote_plus(sprint(values), errors="replace")


ELSEWHERE: Final = frozenset({"default", "env", "file", "time"})
"""Functions that some templates have: see ``MoreFunctions``."""

FUNCTIONS: Final[Mapping[str, Entry]] = {
    "and": (lambda *values: values[-1], 1, None),
    "or": (lambda *values: values[-1], 1, None),
    "not": (lambda value: not truth(value), 1, 1),
    "len": (_len, 1, 1),
    "index": (_index, 1, None),
    "slice": (_slice, 1, 3),
    "eq": (_equal, 2, None),
    "ne": (lambda one, other: not _equal(one, other), 2, 2),
    "lt": (partial(_ordered, _less), 2, 2),
    "le": (partial(_ordered, _less_or_equal), 2, 2),
    "gt": (lambda one, other: _ordered(_less, other, one), 2, 2),
    "ge": (lambda one, other: _ordered(_less_or_equal, other, one), 2, 2),
    "print": (lambda *values: sprint(values), 0, None),
    "println": (lambda *values: sprintln(values), 0, None),
    "printf": (lambda template, *values: sprintf(_text(template), values), 1, None),
    "html": (_html, 0, None),
    "urlquery": (_urlquery, 0, None),
    "json": (to_json, 1, 1),
    "join": (_join, 2, 2),
    "split": (_split, 2, 2),
    "lower": (lambda text: _text(text).lower(), 1, 1),
    "upper": (lambda text: _text(text).upper(), 1, 1),
    "title": (_title, 1, 1),
    "pad": (_pad, 3, 3),
    "truncate": (_truncate, 2, 2),
}
"""Name to (function, least arguments, most arguments or None)."""
