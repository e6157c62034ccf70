"""The short way from a command line to its command: without click, whose import takes longer than most commands.

It reads what is written as usual and gives up on everything else: what may be a mistake, asks
for help or has a meaning of its own. Giving up costs nothing but time, as click then reads the same
words; so in doubt it gives up. What it reads, it reads as click does (a test compares them).
"""

from __future__ import annotations

from tierce.cli.declare import PATH, RAW, Argument, Choice, Command, Entry, Group, IntRange, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Final

_BOOLEANS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
"""Go's, in small letters: ``--flag=true``."""


class _NotOrdinary(Exception):
    """Click is to read it."""


def read(root: Group, words: Sequence[str]) -> tuple[str, Command, dict[str, Any], dict[str, Any]] | None:
    """Which command the words mean, by its path; what the root's options are set to; what its own are. None: ask click."""
    try:
        before, rest = _split(root.options, words, interspersed=False)
        path, group = root.name, root
        while True:
            entry = group.entries.get(rest[0]) if rest else None
            if entry is None:
                return None
            path = f"{path} {rest.pop(0)}"
            if isinstance(entry, Entry):
                break
            group = entry
        found = entry.load()
        if found.for_click or found.loose:
            return None
        options = [parameter for parameter in found.parameters if isinstance(parameter, Option)]
        given, rest = _split(options, rest, interspersed=found.interspersed)
        values = _values(options, given)
        values.update(_arguments([one for one in found.parameters if isinstance(one, Argument)], rest))
        return path, found, _values(root.options, before), values
    except _NotOrdinary:
        return None


def _split(
    options: Iterable[Option], words: Sequence[str], *, interspersed: bool
) -> tuple[dict[str, list[Any]], list[str]]:
    """What each option was given, by its name and as it was typed (a switch: True or False), and the other words."""
    known: dict[str, Option] = {}
    opposite: dict[str, Option] = {}
    for one in options:
        known.update(dict.fromkeys(one.names, one))
        opposite.update(dict.fromkeys(one.opposites, one))
    given: dict[str, list[Any]] = {}
    others: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            return given, [*others, *left]
        if not word.startswith("-") or word == "-":
            others.append(word)
            if not interspersed:
                return given, [*others, *left]
        elif word in opposite:
            given.setdefault(opposite[word].name, []).append(False)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            _give(known, given, name, value if equals else None, left)
        else:
            _letters(known, given, word, left)
    return given, others


def _give(
    known: dict[str, Option], given: dict[str, list[Any]], name: str, value: str | None, left: Iterable[str]
) -> None:
    """One option, with the value after its ``=`` if there is one."""
    one = known.get(name)
    if one is None or one.callback is not None or "flag_value" in one.attributes:
        raise _NotOrdinary
    found: Any = value
    if one.is_switch:
        found = True if value is None else _BOOLEANS.get(value.lower())
    elif value is None:
        found = next(iter(left), None)
    if found is None or (found is False and not one.opposites):
        raise _NotOrdinary
    given.setdefault(one.name, []).append(found)


def _letters(known: dict[str, Option], given: dict[str, list[Any]], word: str, left: Iterable[str]) -> None:
    """``-i``, ``-it``, ``-eA=1``, ``-itv /x``."""
    for position in range(1, len(word)):
        one = known.get(f"-{word[position]}")
        if one is None:
            raise _NotOrdinary
        if not one.is_switch:
            value = word[position + 1 :]
            if value.startswith("="):
                raise _NotOrdinary
            _give(known, given, f"-{word[position]}", value or None, left)
            return
        _give(known, given, f"-{word[position]}", None, left)


def _values(options: Iterable[Option], given: dict[str, list[Any]]) -> dict[str, Any]:
    """By name, converted; what was not given has its default."""
    values: dict[str, Any] = {}
    for one in options:
        if not one.exposed:
            continue
        words = given.get(one.name)
        if words is None:
            if one.required:
                raise _NotOrdinary
            values[one.name] = _default(one)
        elif one.is_switch:
            values[one.name] = words[-1]
        elif one.multiple:
            values[one.name] = tuple([_converted(one, word) for word in words])
        else:
            values[one.name] = _converted(one, words[-1])
    return values


def _default(one: Option) -> Any:
    if "default" in one.attributes:
        return one.default
    return () if one.multiple else False if one.is_switch else None


def _arguments(arguments: Sequence[Argument], words: list[str]) -> dict[str, Any]:
    """The words by the names of the arguments. One that takes the rest comes last, or nothing is ordinary."""
    values: dict[str, Any] = {}
    for one in arguments:
        if one.takes_rest:
            if one is not arguments[-1] or (one.required and not words):
                raise _NotOrdinary
            values[one.name], words = tuple([_converted(one, word) for word in words]), []
        elif words:
            values[one.name] = _converted(one, words.pop(0))
        elif one.required:
            raise _NotOrdinary
        else:
            values[one.name] = one.default
    if words:
        raise _NotOrdinary
    return values


def _converted(one: Option | Argument, word: str) -> Any:
    kind = one.type
    if kind is None or kind is RAW or kind is str:
        return word
    if isinstance(kind, Choice):
        if word not in kind.words:
            raise _NotOrdinary
        return word
    if kind is PATH:
        from image.paths import Path

        return Path(word)
    try:
        if kind is float:
            return float(word)
        if kind is int:
            return int(word)
        if isinstance(kind, IntRange) and kind.low <= int(word) <= (int(word) if kind.high is None else kind.high):
            return int(word)
    except ValueError:
        pass
    raise _NotOrdinary
