"""The parts of a parsed template. ``at`` is ``line:column``, counted from 1."""

from __future__ import annotations

from typing import TypeAlias

from image.value import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class Nil:
    at: str


@dataclass(frozen=True, slots=True)
class Fields:
    """``.A.B``; the dot itself when there are no names."""

    names: tuple[str, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name.A.B``"""

    name: str
    names: tuple[str, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    at: str


@dataclass(frozen=True, slots=True)
class Group:
    """``(pipeline).A.B``"""

    pipeline: Pipeline
    names: tuple[str, ...]
    at: str


Operand: TypeAlias = Literal | Nil | Fields | Variable | Function | Group


@dataclass(frozen=True, slots=True)
class Command:
    """Operands side by side: a value, or a function and its arguments."""

    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given the result of the one before as its last argument.

    ``declares`` is the variable that takes the result; ``assigns`` says it exists already.
    """

    commands: tuple[Command, ...]
    declares: Variable | None = None
    assigns: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Show:
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class If:
    test: Pipeline
    body: Body
    otherwise: Body


@dataclass(frozen=True, slots=True)
class With:
    value: Pipeline
    body: Body
    otherwise: Body


@dataclass(frozen=True, slots=True)
class Range:
    """``variables`` are those for the element, or for the index and the element."""

    over: Pipeline
    variables: tuple[Variable, ...]
    body: Body
    otherwise: Body


@dataclass(frozen=True, slots=True)
class Break:
    pass


@dataclass(frozen=True, slots=True)
class Continue:
    pass


Node: TypeAlias = Text | Show | If | With | Range | Break | Continue
Body: TypeAlias = tuple[Node, ...]
