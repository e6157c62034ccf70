"""One registries.conf file → ``FileSays``. Every error names the file and the line.

Unknown keys are passed over, as podman does: files serve programs of several ages.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, NoReturn, get_args

from image.errors import InvalidInput, InvalidReference
from image.reference import Reference
from image.value import dataclass, field
from transfer.registries_conf.values import Mirror, MirrorUse, Rule, ShortNameMode

_HOST: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?\Z|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?\Z"
)
_TOML_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)\Z| \(at end of document\)\Z")


@dataclass(frozen=True, slots=True)
class FileSays:
    """What one file sets; None is what it leaves to the others."""

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] | None = None
    short_name_mode: ShortNameMode | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    credential_helpers: tuple[str, ...] | None = None


def decode(text: str, file: str, *, drop_in: bool = False) -> FileSays:
    """Raises InvalidInput. Version 1 (``[registries.search]``) is read where it may still be: no drop-in."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _raise_toml(str(error), text, file)
    except RecursionError:
        raise InvalidInput(f"read {file}: nested too deeply") from None
    return _File(text, file).decode(document, drop_in=drop_in)


def _raise_toml(problem: str, text: str, file: str) -> NoReturn:
    at = _TOML_LINE.search(problem)
    line = int(at[1]) if at and at[1] else text.count("\n") + 1
    what = _TOML_LINE.sub("", problem)
    raise InvalidInput(f"read {file}:{line}: not valid TOML: {what[:1].lower()}{what[1:]}") from None


class _File:
    """Decodes one file. Paths such as ``registry[1].mirror[0].insecure`` name what is wrong."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name

    def decode(self, document: Mapping[str, Any], *, drop_in: bool) -> FileSays:
        if "registries" in document:
            return self._version_1(document, drop_in=drop_in)
        mode = self._text_of(document, "short-name-mode")
        if mode and mode not in get_args(ShortNameMode):
            self._fail("short-name-mode", f"want one of {', '.join(get_args(ShortNameMode))}")
        tables = document.get("registry", [])
        if not isinstance(tables, list):
            self._fail("registry", "want tables: [[registry]]")
        rules = tuple(self._rule(table, f"registry[{number}]") for number, table in enumerate(tables))
        self._check_conflicts(rules)
        return FileSays(
            rules=rules,
            search=self._hosts(document, "unqualified-search-registries"),
            short_name_mode=mode or None,  # type: ignore[arg-type]  # checked above
            aliases=self._aliases(document),
            credential_helpers=self._words(document, "credential-helpers"),
        )

    def _rule(self, table: object, at: str) -> Rule:
        if not isinstance(table, dict):
            self._fail(at, "want a table")
        prefix, location = self._place(table, "prefix", at), self._place(table, "location", at)
        wildcard = prefix.startswith("*.")
        if wildcard and re.search(r"[/:@]|\*.*\*", prefix):
            self._fail(f"{at}.prefix", "after '*.' comes a host, without port and path")
        if not location and not wildcard:
            self._fail(at, "location is missing" if prefix else "location and prefix are missing")
        if "pull-from-mirror" in table:
            self._fail(f"{at}.pull-from-mirror", "belongs to a [[registry.mirror]]")
        by_digest = self._flag(table, "mirror-by-digest-only", at)
        mirrors = table.get("mirror", [])
        if not isinstance(mirrors, list):
            self._fail(f"{at}.mirror", "want tables: [[registry.mirror]]")
        return Rule(
            prefix or location,
            location,
            self._flag(table, "insecure", at),
            self._flag(table, "blocked", at),
            by_digest,
            tuple(self._mirror(m, f"{at}.mirror[{n}]", by_digest=by_digest) for n, m in enumerate(mirrors)),
            self._name,
        )

    def _mirror(self, table: object, at: str, *, by_digest: bool) -> Mirror:
        if not isinstance(table, dict):
            self._fail(at, "want a table")
        location = self._place(table, "location", at)
        if not location:
            self._fail(at, "location is missing")
        use = self._text_of(table, "pull-from-mirror", at)
        if use and by_digest:
            self._fail(f"{at}.pull-from-mirror", "can't be set beside mirror-by-digest-only of its registry")
        if use and use not in get_args(MirrorUse):
            self._fail(f"{at}.pull-from-mirror", f"want one of {', '.join(get_args(MirrorUse))}")
        return Mirror(location, self._flag(table, "insecure", at), use or "all")  # type: ignore[arg-type]  # checked

    def _check_conflicts(self, rules: tuple[Rule, ...]) -> None:
        """One registry can't be blocked, or insecure, by one of its tables and not by another."""
        first: dict[str, Rule] = {}
        for number, rule in enumerate(rules):
            other = first.setdefault(rule.location or rule.prefix, rule)
            for key in ("insecure", "blocked"):
                if getattr(rule, key) != getattr(other, key):
                    self._fail(f"registry[{number}].{key}", f"{rule.location or rule.prefix} has two values of {key}")

    def _aliases(self, document: Mapping[str, Any]) -> dict[str, str]:
        table = document.get("aliases", {})
        if not isinstance(table, dict):
            self._fail("aliases", "want a table")
        for name, value in table.items():
            self._check_alias(name, value)
        return table

    def _check_alias(self, name: str, value: object) -> None:
        at = f"aliases.{name}"
        if not isinstance(value, str):
            self._fail(at, "want a text")
        try:
            short, full = Reference.parse(name), Reference.parse(value or name)
        except InvalidReference as error:
            self._fail(at, str(error))
        if not short.short or short.tag or short.digest:
            self._fail(at, f"{name!r} is no short name: it must have no host, tag or digest")
        if value and (full.short or full.tag or full.digest):
            self._fail(at, f"{value!r} must have a host, and no tag or digest")

    def _version_1(self, document: Mapping[str, Any], *, drop_in: bool) -> FileSays:
        version_2 = {"registry", "unqualified-search-registries", "aliases", "short-name-mode"} & document.keys()
        if drop_in or version_2:
            self._fail("registries", "version 1 of the format can't be used here: write [[registry]] tables")
        tables = document["registries"]
        if not isinstance(tables, dict):
            self._fail("registries", "want a table")
        search, insecure, blocked = (
            self._hosts(tables.get(key, {}), "registries", f"registries.{key}") or ()
            for key in ("search", "insecure", "block")
        )
        rules = tuple(
            Rule(host, host, host in insecure, host in blocked, file=self._name)
            for host in dict.fromkeys((*blocked, *insecure))
        )
        return FileSays(rules=rules, search=search)

    # Values

    def _text_of(self, table: Mapping[str, Any], key: str, at: str = "") -> str:
        value = table.get(key, "")
        if not isinstance(value, str):
            self._fail(_join(at, key), "want a text")
        return value

    def _flag(self, table: Mapping[str, Any], key: str, at: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            self._fail(_join(at, key), "want true or false")
        return value

    def _place(self, table: Mapping[str, Any], key: str, at: str) -> str:
        """``host[:port][/path]``, without what a URL has more."""
        value = self._text_of(table, key, at).rstrip("/")
        if "://" in value:
            self._fail(_join(at, key), f"{value!r} is a URL: leave {value.partition('://')[0]}:// out")
        host = value.partition("/")[0].removeprefix("*.")
        if value and not _HOST.match(host.partition("@")[0]) and not _HOST.match(host.partition(":")[0]):
            self._fail(_join(at, key), f"{value!r} does not start with a host")
        return value

    def _words(self, table: Mapping[str, Any], key: str, at: str = "") -> tuple[str, ...] | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._fail(_join(at, key), "want a list of texts")
        return tuple(value)

    def _hosts(self, table: Mapping[str, Any], key: str, at: str = "") -> tuple[str, ...] | None:
        words = self._words(table, key, at)
        hosts = None if words is None else tuple(word.rstrip("/") for word in words)
        for host in hosts or ():
            if not _HOST.match(host):
                self._fail(_join(at, key), f"{host!r} is no host[:port]")
        return hosts

    def _fail(self, path: str, problem: str) -> NoReturn:
        raise InvalidInput(f"read {self._name}:{_line_of(self._text, path)}: {path}: {problem}")


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _line_of(text: str, path: str) -> int:
    """The line of a key, or of its table where the key is missing. The usual way of writing is understood."""
    table, known, registry, mirror = "", 1, -1, -1
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            table = header[1]
            if table == "registry":
                registry, mirror, table = registry + 1, -1, f"registry[{registry + 1}]"
            elif table == "registry.mirror":
                mirror, table = mirror + 1, f"registry[{registry}].mirror[{mirror + 1}]"
            where = table
        elif key := re.match(r"""\s*["']?([^"'=]+?)["']?\s*=""", line):
            where = _join(table, key[1])
        else:
            continue
        if where == path:
            return number
        if path.startswith(f"{where}."):
            known = number
    return known
