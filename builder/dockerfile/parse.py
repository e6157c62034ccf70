"""Parsing: the bytes of a Dockerfile to one node an instruction.

Only lines are understood here: directives, comments, continuations and heredocs. What an
instruction means is left to interpret.py, so that every node has its span before anything
can go wrong with it.

Spec: dockerfile.md 2 and 1.4; the Dockerfile reference, "Parser directives" and "Here-Documents".
"""

from __future__ import annotations

import re
from typing import NoReturn

from builder.dockerfile.arguments import json_strings, split_keyword
from builder.dockerfile.blanks import SPACE, SPACES
from builder.dockerfile.words import shell_words
from image.errors import DockerfileError
from image.span import Span
from image.value import dataclass

MAX_LINE = 65535
"""Bytes in one line, its line end included."""

MAX_SIZE = 10 * 1024 * 1024
"""Bytes in one Dockerfile."""

_DIRECTIVE = rf"#{SPACE}*([a-zA-Z][a-zA-Z0-9]*){SPACE}*={SPACE}*(.+)\Z"
_DIRECTIVES = frozenset({"check", "escape", "syntax"})
# A doubled escape character at the end of a line is an escaped escape, not a continuation.
_CONTINUED = {escape: rf"(?:(?<=[^\{escape}])|\A)\{escape}[ \t]*\Z" for escape in "\\`"}
_HEREDOC = r"(\d*)<<(-?)([^<]+)\Z"
_WITH_HEREDOCS = frozenset({"add", "copy", "run"})


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document: ``content`` is verbatim, line ends and leading tabs included."""

    name: str
    content: str
    expand: bool
    """Whether the delimiter was written without quotes."""
    strip_tabs: bool

    @property
    def body(self) -> str:
        """The content as it is meant: without leading tabs if the operator was ``<<-``."""
        return re.sub(r"^\t+", "", self.content, flags=re.MULTILINE) if self.strip_tabs else self.content


@dataclass(frozen=True, slots=True)
class Node:
    """One instruction as text. ``line`` is the logical line: continuations joined, comments gone."""

    keyword: str
    """As written; compare in lower case."""
    flags: tuple[str, ...]
    rest: str
    line: str
    span: Span
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    """The comment lines directly above, without ``#``."""


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive, its name in lower case."""

    name: str
    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed Dockerfile. ``lines`` are its source, for excerpts."""

    file: str
    nodes: tuple[Node, ...]
    directives: tuple[Directive, ...]
    escape: str
    lines: tuple[str, ...]
    empty_continuations: tuple[Span, ...]
    """Instructions with a blank line inside a continuation."""

    def directive(self, name: str) -> str:
        """The value of a directive; "" where it is absent."""
        return next((d.value for d in self.directives if d.name == name), "")


def parse(source: bytes, file: str) -> Document:
    """The nodes of a Dockerfile; ``file`` is the name that messages show.

    Raises DockerfileError for what cannot be split into instructions: a bad directive, an
    unterminated heredoc, a line or file that is too long, NUL bytes, no instructions.
    """
    return _Parser(_decode(source, file), file).document()


def source_lines(source: bytes) -> tuple[str, ...]:
    """The lines of a Dockerfile that may not parse, for the excerpt of its error."""
    text = source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = text.removesuffix("\n").split("\n")
    return tuple(line.removesuffix("\r") for line in lines)


def syntax_error(problem: str, span: Span, hint: str | None = None) -> DockerfileError:
    """An error of the text itself, in the words of docker."""
    return DockerfileError(f"dockerfile parse error on line {span.start}: {problem}", span=span, hint=hint)


def heredoc_operator(word: str) -> Heredoc | None:
    """The heredoc that a word of shell text opens, still without content; None if it is none."""
    found = re.match(_HEREDOC, word)
    if found is None:
        return None
    delimiter = found.group(3)
    names = shell_words(delimiter, keep_quotes=False, keep_escapes=False)
    if len(names) != 1:
        return None
    written = shell_words(delimiter, keep_quotes=True, keep_escapes=False)
    return Heredoc(names[0], "", _quotes(written[0]) == _quotes(names[0]), found.group(2) == "-")


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')


def _decode(source: bytes, file: str) -> str:
    """The text. Bytes that are not UTF-8 survive as surrogates: comments and heredocs may hold them."""
    if not source:
        raise DockerfileError("the Dockerfile cannot be empty")
    if len(source) > MAX_SIZE:
        raise DockerfileError(f"dockerfile is larger than the maximum of {MAX_SIZE} bytes")
    if b"\0" in source:
        line = source.count(b"\n", 0, source.index(b"\0")) + 1
        raise syntax_error("NUL byte in the text", Span(file, line, line))
    if len(source) > MAX_LINE:
        for number, line_bytes in enumerate(source.split(b"\n"), 1):
            if len(line_bytes) >= MAX_LINE:
                problem = f"dockerfile line greater than max allowed size of {MAX_LINE}"
                raise syntax_error(problem, Span(file, number, number))
    return source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


class _Parser:
    """One pass over the lines; ``next`` is the index of the first line not yet taken."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.lines = text.split("\n")
        self.end = len(self.lines) if self.lines[-1] else len(self.lines) - 1
        self.next = 0
        self.escape = "\\"
        self.continued = re.compile(_CONTINUED[self.escape])
        self.comments: list[str] = []
        self.empty_continuations: list[Span] = []

    def document(self) -> Document:
        directives = self._directives()
        nodes: list[Node] = []
        while self.next < self.end:
            node = self._node()
            if node is not None:
                nodes.append(node)
        if not nodes:
            raise DockerfileError("file with no instructions", span=Span(self.file, 1, max(1, self.end)))
        return Document(
            self.file,
            tuple(nodes),
            directives,
            self.escape,
            tuple(line.removesuffix("\r") for line in self.lines[: self.end]),
            tuple(self.empty_continuations),
        )

    def _directives(self) -> tuple[Directive, ...]:
        """The directives, which stand before any comment, blank line or instruction."""
        seen: dict[str, Directive] = {}
        for number, line in enumerate(self.lines[: self.end], 1):
            text = line.strip(SPACES)
            found = re.match(_DIRECTIVE, text) if text.startswith("#") else None  # compiled only for a comment
            name = found.group(1).lower() if found else ""
            if found is None or name not in _DIRECTIVES:
                break
            span = Span(self.file, number, number)
            if name in seen:
                raise syntax_error(f"only one {name} parser directive can be used", span)
            seen[name] = Directive(name, found.group(2), span)
        if "escape" in seen:
            self._set_escape(seen["escape"])
        self.next = len(seen)
        return tuple(seen.values())

    def _set_escape(self, directive: Directive) -> None:
        if directive.value not in ("\\", "`"):
            problem = f"invalid escape token '{directive.value}' does not match ` or \\"
            raise syntax_error(problem, directive.span)
        self.escape = directive.value
        self.continued = re.compile(_CONTINUED[self.escape])

    def _node(self) -> Node | None:
        """The instruction that starts at the next line; None if that is a comment or blank."""
        start = self.next
        line = self.lines[start].rstrip("\r").lstrip(SPACES)
        self.next += 1
        if line.startswith("#"):
            self._comment(line)
            return None
        if not line:
            self.comments.clear()
            return None
        line = self._continued(line, start)
        keyword, flags, rest = split_keyword(line)
        heredocs = self._heredocs(keyword, rest, line, start) if "<<" in line else ()
        self._reject_undecodable(line, start)
        comments = tuple(self.comments)
        self.comments.clear()
        return Node(keyword, flags, rest, line, self._span(start), heredocs, comments)

    def _comment(self, line: str) -> None:
        comment = line[1:].strip(SPACES)
        if comment:
            self.comments.append(comment)
        else:
            self.comments.clear()

    def _continued(self, line: str, start: int) -> str:
        """``line`` with the lines that continue it; comments and blank lines between are dropped."""
        pattern = self.continued
        found = pattern.search(line)
        blank = False
        parts: list[str] = []
        while found is not None:
            parts.append(line[: found.start()])
            line = ""
            while self.next < self.end:
                line = self.lines[self.next].rstrip("\r")
                self.next += 1
                stripped = line.lstrip(SPACES)
                if stripped and stripped[0] != "#":
                    break
                blank = blank or not stripped
                line = ""
            found = pattern.search(line) if line else None
        if blank:
            self.empty_continuations.append(self._span(start))
        return "".join(parts) + line

    def _heredocs(self, keyword: str, rest: str, line: str, start: int) -> tuple[Heredoc, ...]:
        while keyword.lower() == "onbuild":
            keyword, _, rest = split_keyword(rest)
        if keyword.lower() not in _WITH_HEREDOCS:
            return ()
        try:
            if json_strings(rest) is not None:
                return ()
            operators = [heredoc_operator(word) for word in _words_or_none(line)]
        except DockerfileError as error:
            raise syntax_error(str(error), self._span(start)) from None
        except ValueError:
            return ()  # an array of something else than strings: interpret.py says so
        return tuple(self._heredoc(operator, start) for operator in operators if operator is not None)

    def _heredoc(self, operator: Heredoc, start: int) -> Heredoc:
        first = self.next
        while self.next < self.end:
            line = self.lines[self.next].rstrip("\r")
            self.next += 1
            if (line.lstrip("\t") if operator.strip_tabs else line) == operator.name:
                content = "".join(f"{text}\n" for text in self.lines[first : self.next - 1])
                return Heredoc(operator.name, content, operator.expand, operator.strip_tabs)
        raise syntax_error("unterminated heredoc", self._span(start))

    def _reject_undecodable(self, line: str, start: int) -> None:
        if not line.isascii() and re.search("[\udc80-\udcff]", line):
            self._not_utf8(start)

    def _not_utf8(self, start: int) -> NoReturn:
        raise syntax_error("the instruction is not valid UTF-8", self._span(start), "save the file as UTF-8")

    def _span(self, start: int) -> Span:
        return Span(self.file, start + 1, self.next)


def _words_or_none(line: str) -> list[str]:
    """The shell words of a line; none where it is not a shell's language, as for a lone quote."""
    try:
        return shell_words(line, keep_quotes=True, keep_escapes=True)
    except DockerfileError:
        return []
