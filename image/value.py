"""``dataclass`` for values, made in a quarter of the time.

``dataclasses.dataclass`` writes and compiles the source of six methods for each frozen
class: 0.4 ms a class in Python 3.11, 40 ms for what one command imports, which is more than
the interpreter's own start. Here the methods that can be shared are shared, and only
``__init__`` is compiled. Classes that are not frozen and slotted, or are ordered, go to the
standard library, and so should a class of which a loop makes thousands.

To a type checker, and to ``replace``, ``fields`` and ``match``, it is the standard library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - this is the export
else:
    import dataclasses

    def dataclass(cls=None, /, *, frozen=False, slots=False, order=False, eq=True, **options):
        """See ``dataclasses.dataclass``."""

        def decorate(plain):
            if not (frozen and slots) or order:
                return dataclasses.dataclass(plain, frozen=frozen, slots=slots, order=order, eq=eq, **options)
            made = dataclasses.dataclass(plain, slots=True, eq=False, repr=False, **options)
            made.__setattr__, made.__delattr__ = _set_once, _delete_never
            if "__repr__" not in plain.__dict__:
                made.__repr__ = _represent
            if eq:
                fields = made.__dataclass_fields__.values()
                made.__compared__ = tuple(field.name for field in fields if field.compare)
                made.__hashed__ = tuple(
                    field.name for field in fields if (field.compare if field.hash is None else field.hash)
                )
                made.__eq__, made.__hash__ = _equal, _hash
            return made

        return decorate if cls is None else decorate(cls)

    def _set_once(self, name, value):
        """``__init__`` sets each slot for the first time; nobody sets one again."""
        if hasattr(self, name):
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def _delete_never(_self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _represent(self):
        shown = (name for name, field in self.__dataclass_fields__.items() if field.repr)
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def _equal(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__compared__)

    def _hash(self):
        return hash(tuple(getattr(self, name) for name in self.__hashed__))
