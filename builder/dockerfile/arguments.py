"""Argument shapes that several instructions share: text to words, pairs, arrays and numbers.

Nothing here knows a keyword or a span. Functions raise ValueError with the problem, which
interpret.py turns into a DockerfileError at the instruction.

Spec: dockerfile.md 1.3; Go's ``time.ParseDuration`` and ``strconv.ParseBool``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from builder.dockerfile.blanks import SPACE, SPACES
from builder.dockerfile.words import quoted

_BLANKS = re.compile(r"[\t\v\f\r ]+")
# An array of strings without escapes, which is nearly every one: it saves importing json.
_PLAIN_STRING = r'"[^"\\\x00-\x1f]*"'
_PLAIN_ARRAY = re.compile(rf"\[[ \t]*(?:{_PLAIN_STRING}[ \t]*(?:,[ \t]*{_PLAIN_STRING}[ \t]*)*)?\]\Z")


@cache
def _quoted_word(escape: str) -> re.Pattern[str]:
    """No possessive repeats of groups: Python 3.11.2, Debian 12's, loses characters in them.

    Each alternative starts with a character of its own, so there is nothing to backtrack into.
    """
    e = re.escape(escape)
    single, double = r"'[^']*(?:'|\Z)", rf'"(?:[^"{e}]|{e}.)*(?:"|\Z)'
    return re.compile(rf"(?:{single}|{double}|{e}.|(?!{SPACE})[^'\"{e}])+", re.DOTALL)


_DURATION_PART = r"([0-9]*)(\.[0-9]*)?([^0-9.]*)"
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_MAX_NS = 2**63 - 1


def split_keyword(line: str) -> tuple[str, tuple[str, ...], str]:
    """A logical line as keyword, flags and the rest; ``--`` ends the flags."""
    parts = _BLANKS.split(line.strip(SPACES), 1)
    if len(parts) == 1:
        return parts[0], (), ""
    rest = parts[1]
    if not rest.startswith("--"):
        return parts[0], (), rest.strip(SPACES)
    flags, rest = _split_flags(rest)
    return parts[0], flags, rest.strip(SPACES)


def _split_flags(text: str) -> tuple[tuple[str, ...], str]:
    flags: list[str] = []
    position = 0
    while text.startswith("--", position):
        flag, position = _flag_word(text, position)
        if flag == "--":
            break
        flags.append(flag)
        while position < len(text) and text[position] in SPACES:
            position += 1
    return tuple(flags), text[position:]


def _flag_word(text: str, position: int) -> tuple[str, int]:
    """One flag without its quotes. A backslash escapes here whatever the file's directive says."""
    out: list[str] = []
    quote = ""
    while position < len(text):
        char = text[position]
        if not quote and char in SPACES:
            break
        position += 1
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == "\\":
            out.append(text[position : position + 1])
            position += 1
        else:
            out.append(char)
    return "".join(out), position


def split_blanks(text: str) -> tuple[str, ...]:
    """Words between blanks; quotes mean nothing."""
    return tuple(_BLANKS.split(text)) if text else ()


def split_quoted(text: str, escape: str) -> list[str]:
    """Words between white space, where quotes and escapes protect it; they stay in the words."""
    escapes = len(text) - len(text.rstrip(escape))
    if escapes % 2:
        text = text[:-1]  # nothing is left to escape
    return _quoted_word(escape).findall(text)


def json_strings(text: str) -> tuple[str, ...] | None:
    """A JSON array of strings; None where the text is no JSON array, which means shell form.

    Raises ValueError for an array that holds something else than strings.
    """
    text = text.strip(SPACES)
    if not text.startswith("["):
        return None
    if _PLAIN_ARRAY.match(text):
        return tuple(word[1:-1] for word in re.findall(_PLAIN_STRING, text))
    import json

    try:
        items = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return None
    except RecursionError:
        items = [None]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(re.sub("[\ud800-\udfff]", "\ufffd", item) for item in items)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_pairs(text: str, command: str, escape: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """ENV's and LABEL's pairs, and whether they were in the legacy form ``name rest of line``."""
    words = split_quoted(text, escape)
    if not words:
        raise ValueError(f"{command} requires at least one argument")
    if "=" not in words[0]:
        parts = _BLANKS.split(text, 1)
        if len(parts) < 2:
            raise ValueError(f"{command} must have two arguments")
        return ((parts[0], parts[1]),), True
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"Syntax error - can't find = in {quoted(word)}. Must be of the form: name=value")
        if not name:
            raise ValueError(f"{command} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs), False


def parse_bool(text: str) -> bool | None:
    """A boolean as Go spells them; None for anything else."""
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    return False if text in {"0", "f", "F", "false", "FALSE", "False"} else None


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of ``1h2m3.5s``. Raises ValueError in Go's words."""
    invalid = ValueError(f"time: invalid duration {quoted(text)}")
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0
    if not unsigned:
        raise invalid
    total = 0
    position = 0
    while position < len(unsigned):
        found = re.compile(_DURATION_PART).match(unsigned, position)
        assert found is not None
        whole, fraction, unit = found.group(1), found.group(2) or "", found.group(3)
        if not whole and len(fraction) < 2:
            raise invalid
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted(text)}")
        if unit not in _UNITS_NS:
            raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
        total += _scaled(whole, fraction[1:], _UNITS_NS[unit])
        if total > _MAX_NS:
            raise invalid
        position = found.end()
    return -total if text.startswith("-") else total


def _scaled(whole: str, fraction: str, unit_ns: int) -> int:
    digits = fraction[:18]
    scale = int("1" + "0" * len(digits))
    return int(whole[:20] or "0") * unit_ns + int(digits or "0") * unit_ns // scale


def suggest(word: str, options: Iterable[str], *, ignore_case: bool = False) -> str:
    """The option within two edits of ``word``, "" if there is none or ``word`` is itself one.

    Of equally near ones, that with the same letters: swapped letters are the likeliest slip.
    """
    wanted = word.lower() if ignore_case else word
    letters = set(wanted)
    best = (3, True, "")
    for option in options:
        candidate = option.lower() if ignore_case else option
        if candidate == wanted:
            return ""
        # An edit changes at most two of the letters that are in one word alone: most need no closer look.
        if abs(len(candidate) - len(wanted)) < 3 and len(letters.symmetric_difference(candidate)) < 5:
            best = min(best, (_edits(wanted, candidate), sorted(candidate) != sorted(wanted), option))
    match = best[2]
    if ignore_case:
        return match.lower() if word.islower() else match.upper() if word.isupper() else match
    return match


def did_you_mean(word: str, options: Iterable[str], *, ignore_case: bool = False) -> str:
    """`` (did you mean X?)`` to append to a message, or ""."""
    match = suggest(word, options, ignore_case=ignore_case)
    return f" (did you mean {match}?)" if match else ""


def _edits(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (char != other))
    return row[-1]
