"""Words: quoting, variables and their modifiers, as the Dockerfile language has them.

Instructions keep their words as written; the planner expands them with the environment
of the moment. It is a shell's expansion in miniature and no more: no commands, no
arithmetic, no ``[a-z]`` in patterns, no assignment.

Spec: dockerfile.md 1.1; the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, NoReturn

from builder.dockerfile.blanks import SPACE, SPACES
from image.errors import DockerfileError
from image.value import dataclass, field

MAX_DEPTH = 100
"""How deep ``${a:-${b:-…}}`` may nest. Hostile input would otherwise exhaust the stack."""

MAX_SIZE = 16 * 1024 * 1024
"""Characters that one word may expand to: ``ENV a=$a$a`` doubles with every line."""

_SHOWN = 400
"""Characters of a word that a message shows."""

_NAME = re.compile(r"\d+|[@*#?\-$!]|\w+")


class _Patterns(NamedTuple):
    """Runs of ordinary characters, for one escape character."""

    special: re.Pattern[str]
    in_quotes: re.Pattern[str]
    plain: Mapping[str, re.Pattern[str]]
    """By the character that ends the text, "" for none."""


@cache
def _patterns(escape: str) -> _Patterns:
    """Compiled when first needed: few files use the backtick."""
    plain = {stop: re.compile(rf"[^'\"$\{escape}{stop}]+") for stop in ("", "}", "/")}
    return _Patterns(re.compile(rf"['\"$\{escape}]"), re.compile(rf"[^\"$\{escape}]+"), plain)


@dataclass(slots=True)
class Usage:
    """Which variables expansion looked up, and which of them had no value."""

    used: set[str] = field(default_factory=set)
    unset: set[str] = field(default_factory=set)


def expand(word: str, env: Mapping[str, str], escape: str = "\\", usage: Usage | None = None) -> str:
    """``word`` without its quotes and escapes, its variables replaced.

    An unset variable is empty, and named in ``usage.unset``. ``escape`` is the file's
    escape character. Raises DockerfileError, without a span.
    """
    if _patterns(escape).special.search(word) is None:
        return word
    return "".join(piece.text for piece in _pieces(word, _Scan(word, env, escape, usage)))


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\", usage: Usage | None = None) -> list[str]:
    """Like ``expand``, then split at white space that is neither quoted nor escaped.

    A variable's value is split too. Empty words vanish, even quoted ones.
    """
    return _split(_pieces(text, _Scan(text, env, escape, usage)))


def expand_heredoc(body: str, env: Mapping[str, str], usage: Usage | None = None) -> str:
    """The body of an unquoted ADD or COPY heredoc: quotes stay, backslashes escape.

    The escape character is a backslash whatever the file's directive says.
    """
    if "$" not in body and "\\" not in body:
        return body
    scan = _Scan(body, env, "\\", usage, quotes="literal")
    return "".join(piece.text for piece in _pieces(body, scan))


def shell_words(text: str, *, keep_quotes: bool, keep_escapes: bool) -> list[str]:
    """``text`` split as a shell would, its variables left as they are.

    This is how heredoc operators are found: the words must look as they were written.
    """
    quotes = "kept" if keep_quotes else "removed"
    return _split(_pieces(text, _Scan(text, {}, "\\", None, quotes=quotes, keep_escapes=keep_escapes, keep_unset=True)))


def quoted(text: str) -> str:
    """``text`` in double quotes as Go prints it, the form of every message here."""
    out = text.replace("\\", "\\\\").replace('"', '\\"')
    out = out.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in out) + '"'


class _Piece(NamedTuple):
    text: str
    splits: bool
    """Whether white space in ``text`` separates words."""


class _Problem(Exception):
    """What is wrong inside a word; ``_pieces`` adds which word."""


def _pieces(source: str, scan: _Scan) -> list[_Piece]:
    try:
        return scan.until("")
    except _Problem as problem:
        shown = source if len(source) <= _SHOWN else source[:_SHOWN] + "…"
        raise DockerfileError(f"failed to process {quoted(shown)}: {problem}") from None


def _split(pieces: list[_Piece]) -> list[str]:
    words: list[str] = []
    word = ""
    for text, splits in pieces:
        if not splits:
            word += text
            continue
        for part in re.split(f"({SPACE}+)", text):
            if part and part[0] in SPACES:
                words.append(word)
                word = ""
            else:
                word += part
    words.append(word)
    return [word for word in words if word]


class _Scan:
    """One pass over one word. ``pos`` only moves forward."""

    __slots__ = (
        "depth",
        "env",
        "escape",
        "keep_escapes",
        "keep_unset",
        "patterns",
        "pos",
        "quotes",
        "size",
        "text",
        "usage",
    )

    def __init__(
        self,
        text: str,
        env: Mapping[str, str],
        escape: str,
        usage: Usage | None,
        *,
        quotes: str = "removed",
        keep_escapes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self.text = text
        self.env = env
        self.escape = escape
        self.patterns = _patterns(escape)
        self.usage = usage
        self.quotes = quotes
        self.keep_escapes = keep_escapes
        self.keep_unset = keep_unset
        self.pos = 0
        self.depth = 0
        self.size = 0

    def until(self, stop: str) -> list[_Piece]:
        """Everything up to ``stop``, which is consumed; up to the end if it is empty."""
        pieces: list[_Piece] = []
        plain = self.patterns.plain[stop]
        while self.pos < len(self.text):
            char = self.text[self.pos]
            if char == stop:
                self.pos += 1
                return pieces
            if char == "$":
                pieces.append(_Piece(self._dollar(), True))
            elif char == "'" and self.quotes != "literal":
                pieces.append(_Piece(self._single_quoted(), False))
            elif char == '"' and self.quotes != "literal":
                pieces.append(_Piece(self._double_quoted(), False))
            elif char == self.escape:
                pieces.append(_Piece(self._escaped(), False))
            else:
                run = plain.match(self.text, self.pos)
                start, self.pos = self.pos, run.end() if run else self.pos + 1
                pieces.append(_Piece(self.text[start : self.pos], True))
        if stop:
            raise _Problem(f"unexpected end of statement while looking for matching {stop}")
        return pieces

    def _escaped(self) -> str:
        pair = self.text[self.pos : self.pos + 2]
        self.pos += len(pair)
        return pair if self.keep_escapes else pair[1:]

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.pos + 1)
        if end < 0:
            self.pos = len(self.text)
            raise _Problem("unexpected end of statement while looking for matching single-quote")
        start, self.pos = self.pos, end + 1
        return self.text[start : end + 1] if self.quotes == "kept" else self.text[start + 1 : end]

    def _double_quoted(self) -> str:
        out: list[str] = []
        self.pos += 1
        while self.pos < len(self.text):
            char = self.text[self.pos]
            if char == '"':
                self.pos += 1
                inside = "".join(out)
                return f'"{inside}"' if self.quotes == "kept" else inside
            if char == "$":
                out.append(self._dollar())
            elif char == self.escape:
                out.append(self._escaped_in_quotes())
            else:
                run = self.patterns.in_quotes.match(self.text, self.pos)
                assert run is not None
                self.pos = run.end()
                out.append(run.group())
        raise _Problem("unexpected end of statement while looking for matching double-quote")

    def _escaped_in_quotes(self) -> str:
        """Between double quotes only a quote, a dollar and the escape itself can be escaped."""
        following = self.text[self.pos + 1 : self.pos + 2]
        self.pos += 1
        if not following or following not in f'"${self.escape}':
            return self.escape
        self.pos += 1
        return self.escape + following if self.keep_escapes else following

    def _dollar(self) -> str:
        self.pos += 1
        if self.text.startswith("{", self.pos):
            return self._braced()
        name = self._name()
        if not name:
            return "$"
        value = self._lookup(name)
        if value is None:
            return f"${name}" if self.keep_unset else ""
        return value

    def _name(self) -> str:
        found = _NAME.match(self.text, self.pos)
        if found is None:
            return ""
        self.pos = found.end()
        return found.group()

    def _lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        if self.usage is not None:
            (self.usage.unset if value is None else self.usage.used).add(name)
        if value is not None:
            self.size += len(value)
            if self.size > MAX_SIZE:
                raise _Problem(f"the result is longer than {MAX_SIZE} characters")
        return value

    def _braced(self) -> str:
        """``${…}``, from its opening brace."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Problem(f"substitutions nest deeper than {MAX_DEPTH}")
        self.pos += 1
        if self.text[self.pos : self.pos + 1] in ("{", "}", ":"):
            raise _Problem("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            value = self._lookup(name)
            result = value if value is not None else f"${{{name}}}" if self.keep_unset else ""
        elif operator == "/":
            result = self._replaced(name)
        else:
            result = self._modified(name, operator)
        self.depth -= 1
        return result

    def _next(self) -> str:
        if self.pos >= len(self.text):
            raise _Problem("syntax error: missing '}'")
        self.pos += 1
        return self.text[self.pos - 1]

    def _operand(self, stop: str, *, keep_escapes: bool) -> str:
        """The word of a modifier. It is expanded even when its value is not needed."""
        outer, self.keep_escapes = self.keep_escapes, keep_escapes
        try:
            return "".join(piece.text for piece in self.until(stop))
        except _Problem:
            if self.pos < len(self.text):
                raise
            where = "missing '}'" if stop == "}" else "missing '/' in ${}"
            raise _Problem(f"syntax error: {where}") from None
        finally:
            self.keep_escapes = outer

    def _modified(self, name: str, operator: str) -> str:
        empty_is_unset = operator == ":"
        if empty_is_unset:
            operator = self._next()
        written = ":" + operator if empty_is_unset else operator
        if operator not in "-+?#%":
            raise _Problem(f"unsupported modifier ({written}) in substitution")
        word = self._operand("}", keep_escapes=operator in "#%")
        value = self._lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}{written}{word}}}"
        if operator in "#%":
            return _trimmed(value or "", operator, word)
        present = value if value or not empty_is_unset else None
        if operator == "-":
            return word if present is None else present
        if operator == "+":
            return "" if present is None else word
        if present is None:
            state = "unset" if value is None else "empty"
            raise _Problem(f"{name}: {word or f'is not allowed to be {state}'}")
        return present

    def _replaced(self, name: str) -> str:
        everywhere = self.text.startswith("/", self.pos)
        if everywhere:
            self.pos += 1
        pattern = self._operand("/", keep_escapes=True)
        replacement = self._operand("}", keep_escapes=True)
        value = self._lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        result = _substituted(value or "", _regex(_fragments(pattern), longest=True), replacement, everywhere)
        self.size += len(result)
        if self.size > MAX_SIZE:
            raise _Problem(f"the result is longer than {MAX_SIZE} characters")
        return result


_STAR = "*"


def _trimmed(value: str, operator: str, word: str) -> str:
    """``value`` without its shortest matching prefix or suffix; a doubled operator means longest."""
    longest = word.startswith(operator)
    fragments = _fragments(word[1:] if longest else word)
    if operator == "#":
        found = _regex(fragments, longest).match(value)
        return value[found.end() :] if found else value
    # A regular expression finds leftmost matches, so a suffix is the prefix of the reverse.
    found = _regex(fragments[::-1], longest).match(value[::-1])
    return value[: len(value) - found.end()] if found else value


def _substituted(value: str, pattern: re.Pattern[str], replacement: str, everywhere: bool) -> str:
    out: list[str] = []
    end = 0
    for found in pattern.finditer(value):
        if out and found.end() == found.start() == end:
            continue  # an empty match that touches the one before it does not count
        out += value[end : found.start()], replacement
        end = found.end()
        if not everywhere:
            break
    return "".join(out) + value[end:]


def _fragments(pattern: str) -> list[str]:
    """A pattern as one regular expression a character, ``*`` as ``_STAR``."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "\\":
            char = pattern[position : position + 1]
            if char in ("}", "/"):
                continue  # escaped only because it would have ended the pattern
            if char not in ("*", "?", "\\"):
                _bad_escape(pattern, char)
            position += 1
            out.append(re.escape(char))
        else:
            out.append(_STAR if char == "*" else "." if char == "?" else re.escape(char))
    return out


def _bad_escape(pattern: str, char: str) -> NoReturn:
    raise _Problem(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{char}'")


def _regex(fragments: list[str], longest: bool) -> re.Pattern[str]:
    """Atomic groups, because a pattern of many stars would otherwise take exponential time.

    They change no result: placing each literal as early as possible never prevents a match.
    """
    segments = [""]
    for fragment in fragments:
        if fragment is _STAR:
            segments.append("")
        else:
            segments[-1] += fragment
    first, *rest = segments
    if not rest:
        return re.compile(first)
    *middle, last = rest
    parts = [first, *(f"(?>.*?{segment})" for segment in middle)]
    parts.append(f".*{last}" if longest else f".*?{last}")
    return re.compile("".join(parts))
