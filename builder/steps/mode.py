"""``--chmod``: octal or symbolic, to a change of permission bits. Spec: dockerfile.md 1.5; POSIX chmod."""

from __future__ import annotations

import re
from typing import Final

from image.errors import InvalidInput
from image.value import dataclass

_CLAUSE: Final = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION: Final = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS: Final = {"u": 6, "g": 3, "o": 0}
_BITS: Final = {"r": 4, "w": 2, "x": 1}
_SPECIAL: Final = {"u": 0o4000, "g": 0o2000, "o": 0o1000}


@dataclass(frozen=True, slots=True)
class Mode:
    """A parsed ``--chmod``. ``octal`` is the whole mode, None for a symbolic one."""

    octal: int | None
    clauses: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Raises InvalidInput."""
        if re.match(r"[0-7]{1,7}\Z", text) and int(text, 8) <= 0o7777:
            return cls(int(text, 8))
        clauses: list[tuple[str, str, str]] = []
        for clause in text.split(","):
            found = _CLAUSE.match(clause)
            if found is None:
                raise InvalidInput(f"invalid chmod parameter {text!r}: want an octal mode up to 7777 or a symbolic one")
            who, actions = found.groups()
            clauses.extend((who or "ugo", sign, what) for sign, what in _ACTION.findall(actions))
        return cls(None, tuple(clauses))

    def apply(self, mode: int, *, is_directory: bool) -> int:
        """The permission bits of a file that had ``mode``."""
        if self.octal is not None:
            return self.octal
        for who, sign, what in self.clauses:
            mode = _changed(mode, who.replace("a", "ugo"), sign, what, is_directory)
        return mode


def _changed(mode: int, who: str, sign: str, what: str, is_directory: bool) -> int:
    bits, mask = 0, 0
    for person in who:
        shift = _SHIFTS[person]
        mask |= 0o7 << shift | _SPECIAL[person]
        if what in _SHIFTS and what:
            bits |= (mode >> _SHIFTS[what] & 0o7) << shift
            continue
        for letter in what:
            if letter == "X":
                bits |= (1 << shift) if is_directory or mode & 0o111 else 0
            elif letter in _BITS:
                bits |= _BITS[letter] << shift
            elif letter == "s":
                bits |= {"u": 0o4000, "g": 0o2000}.get(person, 0)
            elif letter == "t":
                bits |= 0o1000
    match sign:
        case "+":
            return mode | bits
        case "-":
            return mode & ~bits
        case _:
            return mode & ~mask | bits
