"""Ignore files: which paths of a build context the build may not see.

The same rules serve ``COPY --exclude``. They are not git's: every pattern starts at the
root, a match on a directory covers what is below it, and the last match decides.

Spec: dockerfile.md 2, ".dockerignore"; moby's patternmatcher, ``MatchesOrParentMatches``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builder.dockerfile.blanks import SPACES
from builder.dockerfile.glob import clean, path_expression, segment
from image.errors import InvalidInput
from image.value import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

MAX_SIZE = 10 * 1024 * 1024
"""Bytes in one ignore file."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One cleaned pattern; ``exception`` if a ``!`` stood before it."""

    text: str
    exception: bool = False


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """Patterns in order, compiled. ``file`` is the name for messages."""

    patterns: tuple[Pattern, ...]
    file: str = ""
    _runs: tuple[tuple[re.Pattern[str], bool], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, patterns: Iterable[str], file: str = "") -> IgnoreRules:
        """Rules from patterns, one a string. Raises InvalidInput for bad syntax."""
        parsed = tuple(_pattern(text, file) for text in patterns if text.strip(SPACES))
        return cls(parsed, file, tuple(_runs(parsed, file)))

    @classmethod
    def parse(cls, source: bytes, file: str) -> IgnoreRules:
        """Rules from the bytes of an ignore file. Raises InvalidInput."""
        if len(source) > MAX_SIZE:
            raise InvalidInput(f"{file} is larger than the maximum of {MAX_SIZE} bytes")
        text = source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        # Only a "#" in the first column starts a comment: " #x" is a pattern.
        return cls.of((line for line in text.split("\n") if not line.startswith("#")), file)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    @property
    def has_exceptions(self) -> bool:
        """Whether any pattern re-includes."""
        return any(pattern.exception for pattern in self.patterns)

    def excludes(self, path: str) -> bool:
        """Whether ``path``, relative to the root, is excluded, by itself or by a parent."""
        for regex, exception in self._runs:
            if regex.match(path):
                return not exception
        return False

    def may_include_below(self, directory: str) -> bool:
        """Whether an exception could match below ``directory``. False means: do not look.

        Needed for excluded directories only; may say True where nothing is re-included.
        """
        names = directory.split("/")
        return any(_may_match_below(pattern.text, names) for pattern in self.patterns if pattern.exception)


NOTHING = IgnoreRules(())
"""Rules that exclude nothing."""


def ignore_file_names(dockerfile: str) -> tuple[str, ...]:
    """Where to look for the ignore file of ``dockerfile``, best first.

    The first two stand beside the Dockerfile, the others at the root of the context.
    """
    return f"{dockerfile}.dockerignore", f"{dockerfile}.containerignore", ".containerignore", ".dockerignore"


def _pattern(text: str, file: str) -> Pattern:
    text = text.strip(SPACES)
    exception = text.startswith("!")
    if exception:
        text = text[1:].strip(SPACES)
    if not text:
        raise InvalidInput(f'{_where(file)}illegal exclusion pattern: "!"')
    text = clean(text)
    return Pattern(text.removeprefix("/") or "/", exception)


def _where(file: str) -> str:
    return f"error parsing {file}: " if file else ""


def _runs(patterns: Sequence[Pattern], file: str) -> Iterable[tuple[re.Pattern[str], bool]]:
    """One regular expression for each run of patterns of one sign, last run first.

    The last match decides, so within a run the order does not matter.
    """
    import re  # most contexts have no such file

    run: list[str] = []
    for index in range(len(patterns) - 1, -1, -1):
        pattern = patterns[index]
        try:
            run.append(path_expression(pattern.text))
        except ValueError as error:
            raise InvalidInput(f"{_where(file)}{pattern.text}: {error}") from None
        if index == 0 or patterns[index - 1].exception != pattern.exception:
            # A pattern also matches what is below a directory that it matches.
            yield re.compile(f"(?:{'|'.join(run)})(?:/|\\Z)", re.DOTALL), pattern.exception
            run = []


def _may_match_below(pattern: str, names: Sequence[str]) -> bool:
    """Whether ``pattern`` can match a path that starts with the directory ``names``, and is longer."""
    parts = pattern.split("/")
    for part, name in zip(parts, names, strict=False):
        if "**" in part or "[" in part or "\\" in part:
            return True  # not worth being exact: looking in vain is only slow
        if not segment(part).match(name):
            return False
    return len(parts) > len(names)
