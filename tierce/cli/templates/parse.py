"""Template text to nodes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from lark import Lark, Token, Transformer, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken, VisitError

from image.errors import InvalidTemplate
from tierce.cli.templates.functions import ELSEWHERE, FUNCTIONS
from tierce.cli.templates.nodes import (
    Body,
    Break,
    Command,
    Continue,
    Fields,
    Function,
    Group,
    If,
    Literal,
    Nil,
    Operand,
    Pipeline,
    Range,
    Show,
    Text,
    Variable,
    With,
)

_MAX_LENGTH: Final = 64 << 10
_WORDS: Final = {"true": True, "false": False}
_ESCAPES: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip


def parse(text: str) -> Body:
    """The nodes of a template. Raises InvalidTemplate with the line and column of what is wrong."""
    if len(text) > _MAX_LENGTH:
        raise InvalidTemplate("", f"{len(text)} characters is over the limit of {_MAX_LENGTH}")
    try:
        body: Body = _Build().transform(_grammar().parse(text))
    except UnexpectedInput as error:
        raise InvalidTemplate(*_explain(error, text)) from error
    except VisitError as error:
        if isinstance(error.orig_exc, InvalidTemplate):
            raise error.orig_exc from error
        raise
    except RecursionError as error:
        raise InvalidTemplate("", "nested too deeply") from error
    return body


@cache
def _grammar() -> Lark:
    text = Path(__file__).with_name("template.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=False)


def _explain(error: UnexpectedInput, text: str) -> tuple[str, str]:
    match error:
        case UnexpectedCharacters():
            word = re.match(r"\w+|.", text[error.pos_in_stream :], re.DOTALL)
            return _at(error), f"unexpected {word[0] if word else ''!r} in an action"
        case UnexpectedToken(token=Token(type="$END")) | UnexpectedEOF():
            inside = text.rfind("{{") > text.rfind("}}")
            return _end_of(text), "unclosed action" if inside else "unexpected end: {{end}} is missing"
        case UnexpectedToken(token=token):
            return _at(error), f"unexpected {str(token).strip()[:40]!r}"
    return _at(error), "syntax error"


def _at(place: Any) -> str:
    return f"{place.line}:{place.column}"


def _end_of(text: str) -> str:
    return f"{text.count(chr(10)) + 1}:{len(text) - text.rfind(chr(10))}"


class _Build(Transformer[Token, Any]):
    """Each rule of the grammar to its node; the method names are the rules' names."""

    def start(self, children: list[Any]) -> Body:
        body = self.body(children)
        _refuse_loose_loop_words(body, in_range=False)
        return body

    def body(self, children: list[Any]) -> Body:
        return tuple(child for child in children if child is not None)

    def TEXT(self, token: Token) -> Text:  # noqa: N802  (named for the terminal)
        return Text(str(token))

    def COMMENT(self, _token: Token) -> None:  # noqa: N802
        return None

    def show(self, children: list[Any]) -> Show:
        return Show(children[0])

    def break_(self, _children: list[Any]) -> Break:
        return Break()

    def continue_(self, _children: list[Any]) -> Continue:
        return Continue()

    def if_(self, children: list[Any]) -> If:
        return If(children[0], children[1], _otherwise(children[2:]))

    def else_if(self, children: list[Any]) -> If:
        return self.if_(children)

    def with_(self, children: list[Any]) -> With:
        return With(children[0], children[1], _otherwise(children[2:]))

    def range(self, children: list[Any]) -> Range:
        (variables, over), body, *rest = children
        return Range(over, variables, body, _otherwise(rest))

    def range_over(self, children: list[Any]) -> tuple[tuple[Variable, ...], Pipeline]:
        *variables, chain = children
        return tuple(_bare(token) for token in variables), Pipeline(chain)

    def pipeline(self, children: list[Any]) -> Pipeline:
        return Pipeline(children[0])

    def declare(self, children: list[Any]) -> Pipeline:
        return Pipeline(children[1], _bare(children[0]))

    def assign(self, children: list[Any]) -> Pipeline:
        return Pipeline(children[1], _bare(children[0]), assigns=True)

    def chain(self, children: list[Any]) -> tuple[Command, ...]:
        return tuple(children)

    def command(self, children: list[Any]) -> Command:
        operands = tuple(child if isinstance(child, Group) else _operand(child) for child in children)
        first = operands[0]
        if isinstance(first, Literal | Nil) and (isinstance(first, Nil) or len(operands) > 1):
            place = first.at if isinstance(first, Nil) else _at(children[0])
            raise InvalidTemplate(place, f"{str(children[0])!r} is not a command")
        return Command(operands)

    def group(self, children: list[Any]) -> Group:
        return Group(children[0], (), "")

    def group_fields(self, children: list[Any]) -> Group:
        return Group(children[0], tuple(str(children[1]).lstrip(")").split(".")[1:]), _at(children[1]))

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        """Rules whose names are Python's own words."""
        builder = getattr(self, f"{data}_", None)
        return builder(children) if builder else Tree(data, children, meta)


def _otherwise(rest: list[Any]) -> Body:
    if not rest:
        return ()
    return (rest[0],) if isinstance(rest[0], If) else tuple(rest[0])


def _refuse_loose_loop_words(body: Body, *, in_range: bool) -> None:
    for node in body:
        if isinstance(node, Break | Continue) and not in_range:
            raise InvalidTemplate("", f"{type(node).__name__.lower()} outside of range")
        if isinstance(node, If | With | Range):
            _refuse_loose_loop_words(node.body, in_range=in_range or isinstance(node, Range))
            _refuse_loose_loop_words(node.otherwise, in_range=in_range)


def _bare(token: Token) -> Variable:
    """A variable that is given a value: it can't have fields."""
    name, *names = str(token).split(".")
    if names or name == "$":
        raise InvalidTemplate(_at(token), f"{str(token)!r} can't be given a value")
    return Variable(name, (), _at(token))


def _operand(token: Token) -> Operand:
    text = str(token)
    match token.type:
        case "FIELDS" | "DOT":
            return Fields(tuple(text.split(".")[1:]) if text != "." else (), _at(token))
        case "VARIABLE":
            name, *names = text.split(".")
            return Variable(name, tuple(names), _at(token))
        case "NAME":
            return _word(token)
        case "NAME_FIELDS":
            name, *names = text.split(".")
            return Group(Pipeline((Command((Function(name, _at(token)),)),)), tuple(names), _at(token))
        case "STRING":
            return Literal(_unquote(text[1:-1], token))
        case "RAW_STRING":
            return Literal(text[1:-1].replace("\r", ""))
        case "CHARACTER":
            return Literal(_character(text[1:-1], token))
        case _:
            return Literal(_number(text, token))


def _word(token: Token) -> Operand:
    name = str(token)
    if name in _WORDS:
        return Literal(_WORDS[name])
    if name == "nil":
        return Nil(_at(token))
    if name not in FUNCTIONS and name not in ELSEWHERE:
        raise InvalidTemplate(_at(token), f"function {name!r} is not defined")
    return Function(name, _at(token))


def _number(text: str, token: Token) -> int | float:
    try:
        octal = len(text.lstrip("+-")) > 1 and text.lstrip("+-")[0] == "0" and text.lstrip("+-").isdigit()
        number: int | float = int(text, 8 if octal else 0)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            raise InvalidTemplate(_at(token), f"bad number {text[:40]!r}") from None
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 64:
        raise InvalidTemplate(_at(token), f"integer {text[:40]} does not fit in 64 bits")
    return number


def _character(text: str, token: Token) -> int:
    value = _unquote(text, token)
    if len(value) != 1:
        raise InvalidTemplate(_at(token), f"malformed character {text[:40]!r}")
    return ord(value)


def _unquote(text: str, token: Token) -> str:
    """The value of a Go string literal, without its quotes."""
    parts = text.split("\\")
    value = [parts[0]]
    rest = iter(parts[1:])
    for part in rest:
        if not part:
            value.append("\\" + next(rest, ""))
            continue
        value.append(_unescape(part, token))
    return "".join(value)


def _unescape(part: str, token: Token) -> str:
    """What follows one backslash."""
    if part[0] in _ESCAPES:
        return _ESCAPES[part[0]] + part[1:]
    digits = {"x": 2, "u": 4, "U": 8}.get(part[0])
    try:
        if digits is None:
            return chr(int(part[:3], 8)) + part[3:]
        if len(part) <= digits:
            raise ValueError
        return chr(int(part[1 : 1 + digits], 16)) + part[1 + digits :]
    except (ValueError, OverflowError):
        raise InvalidTemplate(_at(token), f"bad escape \\{part[:10]} in a string") from None
