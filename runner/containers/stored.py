"""A user's options as text that outlives the command, and back: frozen values as JSON.

A value is written as its class and the members that differ from their defaults, so that what
a later version adds has its default in a container made before. Only the runner's own
classes are ever read back.
"""

from __future__ import annotations

from enum import Enum

from image.bare import dumps, loads
from image.errors import StorageError
from image.value import changed, is_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeVar

    _T = TypeVar("_T")

_CLASS: Final = "class"


def encode(value: object) -> str:
    """A value of tuples, mappings, plain values and our own frozen classes."""
    return dumps(_pack(value), compact=True)


def decode(text: str, kind: type[_T]) -> _T:
    """What ``encode`` wrote. Raises StorageError when it is not a ``kind``."""
    try:
        value = _unpack(loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise StorageError(f"a container's record is damaged: {error}") from error
    if not isinstance(value, kind):
        raise StorageError(f"a container's record is damaged: it is no {kind.__name__}")
    return value


def _pack(value: Any) -> Any:
    if isinstance(value, Enum):
        return {_CLASS: _name(value), "value": value.value}
    if is_value(value):
        return {_CLASS: _name(value), **{name: _pack(member) for name, member in changed(value).items()}}
    if isinstance(value, tuple | list | frozenset):
        return [_pack(item) for item in value]
    if hasattr(value, "items"):
        return {_CLASS: "", "pairs": [[key, _pack(item)] for key, item in value.items()]}
    return value


def _name(value: object) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpack(item) for item in value)
    if not isinstance(value, dict):
        return value
    members = dict(value)
    module, _, name = members.pop(_CLASS).partition(":")
    if not module:
        return {key: _unpack(item) for key, item in members["pairs"]}
    if module.partition(".")[0] not in ("runner", "image"):
        raise ValueError(f"unknown class {module}")
    found = getattr(__import__(module, fromlist=("_",)), name)
    return found(**{key: _unpack(item) for key, item in members.items()})
