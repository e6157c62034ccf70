"""The cheap dataclass against the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from image.value import NamedTuple, changed, dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Ours:
    a: int
    b: str = "x"
    c: tuple[int, ...] = field(default=(), compare=False, repr=False)
    d: dict[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError(self.a)


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    a: int
    b: str = "x"
    c: tuple[int, ...] = dataclasses.field(default=(), compare=False, repr=False)
    d: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    span: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Child(Base):
    word: str


@dataclass(frozen=True, slots=True, order=True)
class OurPair:
    a: int
    b: str
    c: int = field(default=0, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class TheirPair:
    a: int
    b: str
    c: int = dataclasses.field(default=0, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    a: int


ARGUMENTS: list[tuple[Any, ...]] = [(1,), (1, "y"), (1, "x", (2,)), (1, "x", (), {"k": 1}), (2,)]


PAIRS = [(1, "a"), (1, "b"), (2, "a"), (1, "a", 5)]


@pytest.mark.parametrize("left", PAIRS)
@pytest.mark.parametrize("right", PAIRS)
@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_order_is_the_standard_librarys(
    compare: Callable[[object, object], bool], left: tuple[Any, ...], right: tuple[Any, ...]
) -> None:
    assert compare(OurPair(*left), OurPair(*right)) is compare(TheirPair(*left), TheirPair(*right))


def test_another_class_is_neither_less_nor_more() -> None:
    with pytest.raises(TypeError):
        _ = OurPair(1, "a") < TheirPair(2, "b")  # type: ignore[operator]


@pytest.mark.parametrize("left", ARGUMENTS)
@pytest.mark.parametrize("right", ARGUMENTS)
def test_equality_and_hash_are_the_standard_librarys(left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    assert (Ours(*left) == Ours(*right)) == (Theirs(*left) == Theirs(*right))
    assert (hash(Ours(*left)) == hash(Ours(*right))) == (hash(Theirs(*left)) == hash(Theirs(*right)))
    assert Ours(*left) != Theirs(*left)  # type: ignore[comparison-overlap]


def test_the_text_is_the_standard_librarys() -> None:
    assert repr(Ours(1, "y", (3,))) == repr(Theirs(1, "y", (3,))).replace("Theirs", "Ours")


def test_nothing_can_be_changed() -> None:
    value = Ours(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.a = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.b
    with pytest.raises(AttributeError):
        value.e = 1  # type: ignore[attr-defined]
    assert value == Ours(1)


def test_construction_still_validates() -> None:
    with pytest.raises(ValueError, match="-1"):
        Ours(-1)
    with pytest.raises(TypeError):
        Ours()  # type: ignore[call-arg]


def test_what_works_on_dataclasses_works() -> None:
    value = Ours(1, d={"k": 1})
    assert dataclasses.replace(value, a=2) == Ours(2, d={"k": 1})
    assert dataclasses.asdict(value) == {"a": 1, "b": "x", "c": (), "d": {"k": 1}}
    assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value
    match value:
        case Ours(a, "x"):
            assert a == 1
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_replace_is_the_standard_librarys(arguments: tuple[Any, ...]) -> None:
    value = Ours(*arguments)
    assert replace(value, b="z") == dataclasses.replace(value, b="z") != value
    with pytest.raises(TypeError):
        replace(value, no=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="-1"):
        replace(value, a=-1)


def test_fields_are_the_standard_librarys() -> None:
    ours, theirs = dataclasses.fields(Ours), dataclasses.fields(Theirs)
    for name in ("name", "default", "default_factory", "repr", "hash", "compare", "kw_only"):
        assert [getattr(one, name) for one in ours] == [getattr(one, name) for one in theirs]


def test_a_class_may_have_members_of_the_standard_library() -> None:
    @dataclass(frozen=True, slots=True)
    class Mixed:
        a: int = dataclasses.field(default=1)

    @dataclass(slots=True)
    class Changing:
        a: list[int] = field(default_factory=list)

    assert replace(Mixed(), a=2).a == 2
    assert Changing() == Changing([])


def test_what_was_changed() -> None:
    assert changed(Ours(1, "y")) == {"a": 1, "b": "y", "d": {}}
    assert changed(Theirs(1, "x", (2,))) == {"a": 1, "c": (2,), "d": {}}


def test_inheritance() -> None:
    child = Child("w", span=1)
    assert (child.word, child.span, child.note) == ("w", 1, "")
    assert child == Child("w", span=1) != Child("w", span=2)
    assert dataclasses.replace(child, note="n").note == "n"


def test_identity_where_equality_is_off() -> None:
    value = Identity(1)
    assert value == value
    assert value != Identity(1)
    assert len({value, Identity(1)}) == 2


class Pair(NamedTuple):
    """Two."""

    left: int
    right: str = "r"

    @property
    def both(self) -> str:
        return f"{self.left}{self.right}"


def test_named_tuples_are_the_standard_librarys_in_all_but_their_making() -> None:
    pair = Pair(1)
    assert pair == (1, "r") == Pair(left=1, right="r")
    assert (repr(pair), pair.both, Pair.__doc__) == ("Pair(left=1, right='r')", "1r", "Two.")
    assert pair._replace(right="x")._asdict() == {"left": 1, "right": "x"}
    assert pickle.loads(pickle.dumps(pair)) == pair
    assert Pair._fields == ("left", "right")
    with pytest.raises(TypeError):
        Pair()  # type: ignore[call-arg]
