"""A parsed template applied to a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, assert_never

from image.errors import InvalidTemplate
from tierce.cli.templates.functions import NONE, CallError, Method, MoreFunctions, call, truth
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
    Node,
    Operand,
    Pipeline,
    Range,
    Show,
    Text,
    Variable,
    With,
)
from tierce.cli.templates.parse import parse
from tierce.cli.templates.printing import show
from tierce.documents import Nil as NilValue
from tierce.documents import Record

_MAX_OUTPUT: Final = 64 << 20
_MISSING: Final = object()


def render(body: Body, value: Any, more: MoreFunctions = NONE) -> str:
    """The text of a template for ``value``, with ``more`` functions. Raises InvalidTemplate."""
    try:
        return _Execution(value, more).run(body)
    except RecursionError as error:
        raise InvalidTemplate("", "nested too deeply") from error


def render_text(template: str, value: Any, more: MoreFunctions = NONE) -> str:
    """Parse and render. Raises InvalidTemplate."""
    return render(parse(template), value, more)


class _BreakLoop(Exception):
    pass


class _ContinueLoop(Exception):
    pass


class _Execution:
    """One run: its output, and the variables in scope (innermost last)."""

    def __init__(self, value: Any, more: MoreFunctions) -> None:
        self._more = more
        self._output: list[str] = []
        self._size = 0
        self._root = value
        self._variables: list[tuple[str, Any]] = [("$", value)]

    def run(self, body: Body) -> str:
        self._body(body, self._root)
        return "".join(self._output)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > _MAX_OUTPUT:
            raise InvalidTemplate("", f"the output is longer than {_MAX_OUTPUT} characters")
        self._output.append(text)

    def _body(self, body: Body, dot: Any) -> None:
        scope = len(self._variables)
        for node in body:
            self._node(node, dot)
        del self._variables[scope:]

    def _node(self, node: Node, dot: Any) -> None:
        match node:
            case Text(text):
                self._write(text)
            case Show(pipeline):
                value = self._pipeline(pipeline, dot)
                if pipeline.declares is None:
                    self._write(show(value))
            case If() | With():
                self._branch(node, dot)
            case Range():
                self._range(node, dot)
            case Break():
                raise _BreakLoop
            case Continue():
                raise _ContinueLoop
            case _:
                assert_never(node)

    def _branch(self, node: If | With, dot: Any) -> None:
        scope = len(self._variables)
        value = self._pipeline(node.value if isinstance(node, With) else node.test, dot)
        if truth(value):
            self._body(node.body, value if isinstance(node, With) else dot)
        else:
            self._body(node.otherwise, dot)
        del self._variables[scope:]

    def _range(self, node: Range, dot: Any) -> None:
        over = self._pipeline(node.over, dot)
        scope = len(self._variables)
        empty = True
        for pair in _elements(over):
            empty = False
            values = pair if len(node.variables) == 2 else pair[1:]
            self._variables.extend(
                (variable.name, value) for variable, value in zip(node.variables, values, strict=False)
            )
            try:
                self._body(node.body, pair[1])
            except _ContinueLoop:
                pass
            except _BreakLoop:
                break
            finally:
                del self._variables[scope:]
        if empty:
            self._body(node.otherwise, dot)

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = _MISSING
        for command in pipeline.commands:
            value = self._command(command, dot, value)
        if pipeline.declares is not None:
            self._set(pipeline.declares, value, exists=pipeline.assigns)
        return value

    def _set(self, variable: Variable, value: Any, *, exists: bool) -> None:
        if not exists:
            self._variables.append((variable.name, value))
            return
        for position in range(len(self._variables) - 1, -1, -1):
            if self._variables[position][0] == variable.name:
                self._variables[position] = (variable.name, value)
                return
        raise InvalidTemplate(variable.at, f"undefined variable {variable.name!r}")

    def _command(self, command: Command, dot: Any, piped: Any) -> Any:
        first, *rest = command.operands
        if isinstance(first, Function):
            return self._call(first, rest, dot, piped)
        if (rest or piped is not _MISSING) and isinstance(method := self._operand(first, dot), Method):
            return self._call_method(method, first, [*rest], dot, piped)
        if rest or piped is not _MISSING:
            raise InvalidTemplate(_place(first), f"{_spelled(first)} is not a function but has arguments")
        return self._operand(first, dot)

    def _call_method(self, method: Method, named: Operand, operands: list[Operand], dot: Any, piped: Any) -> Any:
        arguments = [self._operand(operand, dot) for operand in operands]
        try:
            return method.call(*arguments, *([] if piped is _MISSING else [piped]))
        except (CallError, TypeError) as error:
            raise InvalidTemplate(_place(named), f"{_spelled(named)}: {error}") from error

    def _call(self, function: Function, operands: list[Operand], dot: Any, piped: Any) -> Any:
        arguments: list[Any] = []
        for operand in operands:
            arguments.append(self._operand(operand, dot))
            if (function.name == "and" and not truth(arguments[-1])) or (
                function.name == "or" and truth(arguments[-1])
            ):
                return arguments[-1]
        if piped is not _MISSING:
            arguments.append(piped)
        try:
            return call(function.name, arguments, self._more)
        except CallError as error:
            raise InvalidTemplate(function.at, f"{function.name}: {error}") from error

    def _operand(self, operand: Operand, dot: Any) -> Any:
        match operand:
            case Literal(value):
                return value
            case Nil():
                return None
            case Fields(names, at):
                return _fields(dot, names, at)
            case Variable(name, names, at):
                return _fields(self._variable(name, at), names, at)
            case Function():
                return self._call(operand, [], dot, _MISSING)
            case Group(pipeline, names, at):
                return _fields(self._pipeline(pipeline, dot), names, at)
            case _:
                assert_never(operand)

    def _variable(self, name: str, at: str) -> Any:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise InvalidTemplate(at, f"undefined variable {name!r}")


def _elements(over: Any) -> Iterator[tuple[Any, Any]]:
    """What ``range`` walks: (index or key, element)."""
    match over:
        case None:
            return
        case dict():
            yield from sorted(over.items())
        case list() | NilValue():
            yield from enumerate(over)
        case int() if not isinstance(over, bool):
            yield from ((number, number) for number in range(over))
        case _:
            raise InvalidTemplate("", f"range can't iterate over {show(over)[:40]}")


def _fields(value: Any, names: tuple[str, ...], at: str) -> Any:
    for position, name in enumerate(names):
        if isinstance(value, Record):
            if name not in value:
                known = ", ".join(value)
                raise InvalidTemplate(at, f"no field {name!r}; there are: {known}")
            value = value[name]
        elif isinstance(value, dict):
            value = value.get(name)
        elif value is None or isinstance(value, NilValue):
            if value is None and position:
                raise InvalidTemplate(at, f"nil has no field {name!r}")
            value = None
        else:
            raise InvalidTemplate(at, f"can't evaluate field {name!r} of {show(value)[:40]}")
    return value


def _place(operand: Operand) -> str:
    return "" if isinstance(operand, Literal) else operand.at


def _spelled(operand: Operand) -> str:
    match operand:
        case Fields(names, _):
            return "." + ".".join(names)
        case Variable(name, names, _):
            return ".".join((name, *names))
        case Literal(value):
            return show(value)
        case _:
            return "the value"
