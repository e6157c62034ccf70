"""YAML as typed fields, each with its way through the file for a message that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from image.durations import parse_duration_ns
from image.errors import InvalidInput
from image.value import dataclass

_T = TypeVar("_T")
_MAX_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping of the file and where it is: ``sync.yml: sync[2].tags``."""

    place: str
    items: dict[str, Any]

    @classmethod
    def read(cls, data: bytes, name: str) -> Fields:
        """A whole file. Raises InvalidInput that names the line."""
        import yaml

        if len(data) > _MAX_SIZE:
            raise InvalidInput(f"{name}: larger than 1 MiB")
        try:
            loaded = yaml.safe_load(data)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{name}:{mark.line + 1}" if mark else name
            raise InvalidInput(f"{where}: {getattr(error, 'problem', None) or 'not YAML'}") from error
        except (RecursionError, ValueError) as error:
            raise InvalidInput(f"{name}: not YAML that can be read: {error}") from error
        return cls._of(loaded if loaded is not None else {}, f"{name}:")

    @classmethod
    def _of(cls, value: object, place: str) -> Fields:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise InvalidInput(f"{place} should be a mapping of names to values")
        return cls(place, value)

    def _at(self, key: str) -> str:
        return f"{self.place} {key}" if self.place.endswith(":") else f"{self.place}.{key}"

    def _typed(self, key: str, kind: type[_T], words: str) -> _T | None:
        value = self.items.get(key)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidInput(f"{self._at(key)} should be {words}")
        return value

    def text(self, key: str, default: str = "") -> str:
        found = self._typed(key, str, "a text: write it in quotes")
        return default if found is None else found

    def flag(self, key: str, *, default: bool) -> bool:
        found = self._typed(key, bool, "true or false")
        return default if found is None else found

    def number(self, key: str, default: int = 0) -> int:
        found = self._typed(key, int, "a whole number")
        return default if found is None else found

    def seconds(self, key: str) -> float:
        """A duration as Go writes it (``1h30m``); 0.0 where there is none."""
        text = self.text(key)
        try:
            return parse_duration_ns(text) / 1e9 if text else 0.0
        except InvalidInput as error:
            raise InvalidInput(f"{self._at(key)} should be a duration such as 90s or 1h30m") from error

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; versions such as 1.10 have to be in quotes, as YAML would take them for numbers."""
        found = self._typed(key, list, "a list of texts") or []
        if not all(isinstance(one, str) for one in found):
            raise InvalidInput(f"{self._at(key)} should be a list of texts: write versions in quotes")
        return tuple(found)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A mapping of texts to texts."""
        found = self.mapping(key)
        return tuple((name, found.text(name)) for name in found.items)

    def mapping(self, key: str) -> Fields:
        value = self.items.get(key)
        return Fields._of({} if value is None else value, self._at(key))

    def mappings(self, key: str) -> Iterator[Fields]:
        """The members of a list of mappings."""
        for position, value in enumerate(self._typed(key, list, "a list") or []):
            yield Fields._of(value, f"{self._at(key)}[{position}]")

    def only(self, *known: str) -> None:
        """Raises InvalidInput for a name that means nothing here, with the one that was probably meant."""
        for name in self.items:
            if name not in known:
                from difflib import get_close_matches

                close = get_close_matches(name, known, 1)
                hint = f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}"
                raise InvalidInput(f"{self._at(name)} is not known{hint}")

    def failing(self, key: str) -> str:
        """Where a value is, for a message about it."""
        return self._at(key)
