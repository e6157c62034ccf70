"""How Go prints values: ``fmt``'s Sprint and Sprintf, and docker's JSON, for plain values.

Values are what JSON has (None, bool, int, float, str, list, dict), and ``tierce.documents``'s
``Record`` and ``Nil``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from tierce.documents import Nil, Record

_MAX_WIDTH: Final = 1_000_000
_VERB: Final = re.compile(r"%([-+# 0]*)(\d*)(?:(\.)(\d*))?(.?)", re.DOTALL)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON without HTML escapes; a map's keys are sorted, a struct's stay in order."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(_jsonable(value), indent=indent, separators=separators, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Nil):
        return None
    if isinstance(value, dict):
        if not isinstance(value, Record):
            return {key: _jsonable(item) for key, item in sorted(value.items())}
        names = value.json_names
        return {names.get(key, key): _jsonable(item) for key, item in value.items() if item or key not in names}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


def show(value: Any) -> str:
    """What an action ``{{...}}`` puts out."""
    return "<no value>" if value is None else _plain(value)


def sprint(values: Sequence[Any]) -> str:
    """Go's Sprint: a space between two neighbours of which neither is a string."""
    parts: list[str] = []
    for before, value in zip((None, *values), values, strict=False):
        if parts and not isinstance(before, str) and not isinstance(value, str):
            parts.append(" ")
        parts.append(_plain(value))
    return "".join(parts)


def sprintln(values: Sequence[Any]) -> str:
    return " ".join(_plain(value) for value in values) + "\n"


def type_name(value: Any) -> str:
    """Go's name for the type of a value."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return "[]string" if all(isinstance(item, str) for item in value) else "[]interface {}"
        case dict():
            strings = all(isinstance(item, str) for item in value.values())
            return "map[string]string" if strings else "map[string]interface {}"
        case _:
            return "[]string"


def _plain(value: Any) -> str:
    """``%v``"""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _general(value)
        case list():
            return "[" + " ".join(_plain(item) for item in value) + "]"
        case dict():
            return "map[" + " ".join(f"{key}:{_plain(value[key])}" for key in sorted(value)) + "]"
        case _:
            return str(value)


def _general(value: float, precision: int | None = None, upper: bool = False) -> str:
    """``%g``: the shortest digits that read back as the same number, or ``precision`` of them."""
    if math.isinf(value) or math.isnan(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if precision is not None:
        text = f"{value:.{precision}g}"
        return text.upper() if upper else text
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    scientific = len(digits) + exponent - 1
    if value and (scientific < -4 or scientific >= 6):
        mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
        text = f"{'-' if sign else ''}{mantissa}e{'-' if scientific < 0 else '+'}{abs(scientific):02d}"
    else:
        text = f"{Decimal(repr(value)).normalize():f}"
    return text.upper() if upper else text


def sprintf(template: str, values: Sequence[Any]) -> str:
    """Go's Sprintf, with its ways of naming a mistake inside the text."""
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, dot, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if not rest:
            return f"%!{verb}(MISSING)"
        if int(width or 0) > _MAX_WIDTH or int(precision or 0) > _MAX_WIDTH:
            return "%!(BADWIDTH)"
        digits = int(precision or 0) if dot else None
        return _pad(_verb(verb, rest.pop(0), flags, digits), int(width or 0), flags, verb)

    text = _VERB.sub(one, template)
    if rest:
        text += "%!(EXTRA " + ", ".join(f"{type_name(value)}={_plain(value)}" for value in rest) + ")"
    return text


def _verb(verb: str, value: Any, flags: str, precision: int | None) -> str:
    """One value by one verb. Lists take the verb element by element."""
    if isinstance(value, list) and verb not in "vT":
        return "[" + " ".join(_verb(verb, item, flags, precision) for item in value) + "]"
    match verb, value:
        case "v", _:
            return _natural(value, flags, precision)
        case "T", _:
            return type_name(value)
        case "t", bool():
            return _plain(value)
        case (("s" | "q" | "x" | "X"), str()):
            return _string_verb(verb, _cut(value, precision))
        case (("d" | "b" | "o" | "O" | "x" | "X" | "c" | "q" | "U"), int()) if not isinstance(value, bool):
            return _integer_verb(verb, value, flags)
        case (("e" | "E" | "f" | "F" | "g" | "G"), float()):
            return _float_verb(verb, value, flags, precision)
        case _:
            inner = "<nil>" if value is None else f"{type_name(value)}={_plain(value)}"
            return f"%!{verb}({inner})"


def _natural(value: Any, flags: str, precision: int | None) -> str:
    """``%v`` with flags."""
    match value:
        case float():
            return _signed(_general(value, precision), flags)
        case int() if not isinstance(value, bool):
            return _signed(str(value), flags)
        case str():
            return quote(value) if "#" in flags else _cut(value, precision)
        case _:
            return _plain(value)


def _cut(text: str, precision: int | None) -> str:
    return text if precision is None else text[:precision]


def _string_verb(verb: str, value: str) -> str:
    match verb:
        case "s":
            return value
        case "q":
            return quote(value)
        case "x":
            return value.encode(errors="replace").hex()
        case _:
            return value.encode(errors="replace").hex().upper()


def _integer_verb(verb: str, value: int, flags: str) -> str:
    if verb in "cqU":
        if verb == "U":
            return f"U+{value:04X}"
        character = chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
        return character if verb == "c" else f"'{character}'"
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    if verb == "O":
        verb, prefix = "o", "0o"
    digits = prefix + format(abs(value), verb)
    return _signed("-" + digits if value < 0 else digits, flags)


def _float_verb(verb: str, value: float, flags: str, precision: int | None) -> str:
    if verb in "gG":
        return _signed(_general(value, precision, verb == "G"), flags)
    return _signed(format(value, f".{6 if precision is None else precision}{verb}"), flags)


def _signed(text: str, flags: str) -> str:
    if text.startswith(("-", "+")):
        return text
    return "+" + text if "+" in flags else " " + text if " " in flags else text


def _pad(text: str, width: int, flags: str, verb: str) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and verb not in "vTt":
        sign = text[:1] if text[:1] in {"+", "-"} else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def quote(text: str) -> str:
    """A Go string literal: JSON's escapes for quotes, Go's for what can't be printed."""
    escapes = {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
    return '"' + "".join(escapes.get(c) or (c if c.isprintable() else _escaped(ord(c))) for c in text) + '"'


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
