"""``dataclass`` for values, made in a twentieth of the time and without ``dataclasses``.

``dataclasses`` takes nine milliseconds to import and 0.4 ms for each frozen class, as it
writes and compiles the source of six methods: more for what one command imports than the
interpreter's own start. Here the methods that can be shared are shared, and ``__init__``
alone is compiled, when the first instance of a class is made. The real fields of the
standard library are made when ``dataclasses`` itself asks for them.

``NamedTuple`` and ``Protocol`` are here for the same reason: ``typing`` takes five milliseconds.

Classes that are not frozen and slotted go to the standard library. To a
type checker, and to ``dataclasses.asdict`` and ``match``, all is the standard library's.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - this is the export
    from dataclasses import field as field  # noqa: PLC0414
    from dataclasses import replace as replace  # noqa: PLC0414
    from typing import Any
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414
    from typing import Protocol as Protocol  # noqa: PLC0414

    def is_value(found: object) -> bool: ...

    def member_names(cls: type) -> tuple[str, ...]: ...

    def changed(value: object) -> dict[str, Any]: ...
else:
    Protocol = object

    class _Named(type):
        """See ``typing.NamedTuple``: makes what it makes, without ``typing``."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            from collections import namedtuple

            names = list(namespace.pop("__annotations__"))
            defaults = [namespace.pop(member) for member in names if member in namespace]
            made = namedtuple(name, names, defaults=defaults, module=namespace.pop("__module__"))  # noqa: PYI024
            for member, value in namespace.items():
                setattr(made, member, value)
            return made

    class NamedTuple(metaclass=_Named):
        """See ``typing.NamedTuple``."""

    _MISSING = object()

    class _Field:
        """What a class says of one of its members."""

        __slots__ = ("compare", "default", "default_factory", "hash", "kw_only", "name", "repr", "type")

        def __init__(self, default, default_factory, repr, hash, compare):  # noqa: A002 - the standard library's names
            self.name, self.type, self.kw_only = "", "", False
            self.default, self.default_factory = default, default_factory
            self.repr, self.hash, self.compare = repr, hash, compare

        @property
        def is_hashed(self):
            return self.compare if self.hash is None else self.hash

        def standard(self):
            """The same for the standard library."""
            import dataclasses

            given = {"default": self.default, "default_factory": self.default_factory}
            return dataclasses.field(
                **{name: value for name, value in given.items() if value is not _MISSING},
                repr=self.repr, hash=self.hash, compare=self.compare, kw_only=self.kw_only,
            )  # fmt: skip

    def field(*, default=_MISSING, default_factory=_MISSING, repr=True, hash=None, compare=True):  # noqa: A002
        """See ``dataclasses.field``."""
        return _Field(default, default_factory, repr, hash, compare)

    def replace(value, /, **changes):
        """See ``dataclasses.replace``."""
        members = getattr(value, "__members__", None)
        if members is None:
            import dataclasses

            return dataclasses.replace(value, **changes)
        for member in members:
            if member.name not in changes:
                changes[member.name] = getattr(value, member.name)
        return type(value)(**changes)

    def is_value(found):
        """Whether it is an instance of such a class, or of one of ``dataclasses``."""
        cls = type(found)
        return hasattr(cls, "__members__") or hasattr(cls, "__dataclass_fields__")

    def member_names(cls):
        """In their order."""
        return tuple(member.name for member in cls.__members__)

    def changed(value):
        """The members that are not their class's default, by name and in their order."""
        if hasattr(value, "__members__"):
            defaults = {member.name: member.default for member in value.__members__}
        else:
            defaults = {name: member.default for name, member in value.__dataclass_fields__.items()}
        found = ((name, getattr(value, name), default) for name, default in defaults.items())
        return {name: own for name, own, default in found if type(own) is not type(default) or own != default}

    def dataclass(cls=None, /, *, frozen=False, slots=False, order=False, eq=True, kw_only=False, **options):
        """See ``dataclasses.dataclass``."""

        def decorate(plain):
            if frozen and slots and eq >= order and not options and _is_ours(plain):
                return _value_class(plain, eq=eq, kw_only=kw_only, order=order)
            import dataclasses

            for name, member in list(vars(plain).items()):
                if isinstance(member, _Field):
                    setattr(plain, name, member.standard())
            return dataclasses.dataclass(
                plain, frozen=frozen, slots=slots, order=order, eq=eq, kw_only=kw_only, **options
            )

        return decorate if cls is None else decorate(cls)

    def _is_ours(plain):
        """Whether nothing of the standard library's is in the class or what it inherits from."""
        standard = sys.modules.get("dataclasses")
        if standard is None:
            return True
        members = vars(plain).values()
        bases = plain.__mro__[1:]
        return not any(isinstance(member, standard.Field) for member in members) and not any(
            "__dataclass_fields__" in vars(base) and "__members__" not in vars(base) for base in bases
        )

    def _value_class(plain, *, eq, kw_only, order):
        """``plain`` once more, with slots and the shared methods."""
        namespace = dict(vars(plain))
        own = [_member(name, kind, namespace, kw_only) for name, kind in plain.__annotations__.items()]
        inherited = {
            member.name: member for base in reversed(plain.__mro__) for member in vars(base).get("__members__", ())
        }
        members = tuple((inherited | {member.name: member for member in own}).values())
        for name in ("__dict__", "__weakref__"):
            namespace.pop(name, None)
        namespace |= {
            "__slots__": tuple(member.name for member in own if member.name not in inherited),
            "__members__": members,
            "__match_args__": tuple(member.name for member in members if not member.kw_only),
            "__dataclass_fields__": _StandardFields(),
            "__qualname__": plain.__qualname__,
            "__init__": _first_init,
            "__setattr__": _set_never,
            "__delattr__": _delete_never,
            "__getstate__": _get_state,
            "__setstate__": _set_state,
        }
        namespace.setdefault("__repr__", _represent)
        if eq:
            namespace |= {
                "__compared__": tuple(member.name for member in members if member.compare),
                "__hashed__": tuple(member.name for member in members if member.is_hashed),
                "__eq__": _equal,
                "__hash__": _hash,
            }
        if order:
            namespace |= {"__lt__": _less, "__le__": _less_or_equal, "__gt__": _greater, "__ge__": _greater_or_equal}
        return type(plain)(plain.__name__, plain.__bases__, namespace)

    def _member(name, kind, namespace, kw_only):
        """What the class body says of ``name``, which is taken out of it: a slot will be there."""
        given = namespace.pop(name, _MISSING)
        member = given if isinstance(given, _Field) else field(default=given)
        member.name, member.type, member.kw_only = name, kind, kw_only
        return member

    def _first_init(self, *values, **named):
        """The ``__init__`` of a class without instances: compiles the one for all that follow."""
        owner = next(cls for cls in type(self).__mro__ if "__members__" in vars(cls))
        owner.__init__ = _compiled_init(owner)
        owner.__init__(self, *values, **named)

    def _compiled_init(cls):
        scope = {"_MISSING": _MISSING}
        parameters, body = [], []
        for member in sorted(cls.__members__, key=lambda member: member.kw_only):
            name, value = member.name, member.name
            scope[f"_set_{name}"] = getattr(cls, name).__set__
            if member.kw_only and "*" not in parameters:
                parameters.append("*")
            if member.default is not _MISSING:
                scope[f"_default_{name}"] = member.default
                parameters.append(f"{name}=_default_{name}")
            elif member.default_factory is not _MISSING:
                scope[f"_make_{name}"] = member.default_factory
                parameters.append(f"{name}=_MISSING")
                value = f"_make_{name}() if {name} is _MISSING else {name}"
            else:
                parameters.append(name)
            body.append(f"    _set_{name}(self, {value})\n")
        if hasattr(cls, "__post_init__"):
            body.append("    self.__post_init__()\n")
        source = f"def __init__(self, {', '.join(parameters)}):\n{''.join(body) or '    pass'}"
        exec(source, scope)  # noqa: S102 - our own class's names
        made = scope["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        return made

    class _StandardFields:
        """``__dataclass_fields__`` of a class, by a twin that the standard library makes when it is asked."""

        def __get__(self, instance, cls):
            import dataclasses

            members = [(member.name, member.type, member.standard()) for member in cls.__members__]
            made = dataclasses.make_dataclass(cls.__name__, members).__dataclass_fields__
            owner = next(base for base in cls.__mro__ if "__members__" in vars(base))
            owner.__dataclass_fields__ = made
            return made

    def _set_never(_self, name, _value):
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def _delete_never(_self, name):
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def _get_state(self):
        return [getattr(self, member.name) for member in self.__members__]

    def _set_state(self, state):
        for member, value in zip(self.__members__, state, strict=True):
            object.__setattr__(self, member.name, value)

    def _represent(self):
        shown = (member.name for member in self.__members__ if member.repr)
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def _equal(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__compared__)

    def _hash(self):
        return hash(tuple(getattr(self, name) for name in self.__hashed__))

    def _compared(self):
        return tuple(getattr(self, name) for name in self.__compared__)

    def _less(self, other):
        return _compared(self) < _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def _less_or_equal(self, other):
        return _compared(self) <= _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def _greater(self, other):
        return _compared(self) > _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def _greater_or_equal(self, other):
        return _compared(self) >= _compared(other) if other.__class__ is self.__class__ else NotImplemented
