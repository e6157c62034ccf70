"""What commands look like, as values: their options, their arguments, the groups they are in.

Nothing here parses. ``quick`` reads an ordinary command line by these values in a millisecond;
what is out of the ordinary (help, a mistake, a shell's completion) goes to click, which is told of
them by ``clicked`` and takes as long to import as a container takes to start. The words are
click's: ``option("-e", "--env", multiple=True)`` means here what it means there.
"""

from __future__ import annotations

from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Final, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IntRange:
    """A whole number from ``low`` on, to ``high`` where there is such."""

    low: int
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """What a word is, where it is neither text nor a number."""

    name: str


PATH: Final = Kind("path")
"""A path, given to the command as a ``Path``."""
DIRECTORY: Final = Kind("directory")
"""The same; a file there is a mistake."""
RAW: Final = Kind("raw")
"""The word as it was typed."""


class _Parameter:
    """What options and arguments have in common: as a decorator it adds itself to the command below."""

    attributes: Mapping[str, Any]

    def __call__(self, function: _F) -> _F:
        function.__dict__.setdefault(_DECLARED, []).append(self)
        return function

    @property
    def type(self) -> type | Choice | IntRange | Kind | None:
        """What the word is converted to; None for text."""
        return self.attributes.get("type")

    @property
    def default(self) -> Any:
        """What the command gets without it."""
        return self.attributes.get("default")

    @property
    def required(self) -> bool:
        """Whether it may be left out."""
        return bool(self.attributes.get("required"))


_DECLARED = "__declared__"


class Option(_Parameter):
    """``names`` set it, ``opposites`` (of a switch) unset it; ``name`` is what the command's function calls it."""

    def __init__(self, declarations: Sequence[str], attributes: Mapping[str, Any]) -> None:
        self.declarations = declarations
        self.attributes = attributes
        self.names: list[str] = []
        self.opposites: list[str] = []
        self.name = ""
        for word in declarations:
            if not word.startswith("-"):
                self.name = word
                continue
            on, slash, off = word.partition("/")
            self.names.append(on)
            if slash:
                self.opposites.append(off)
        if not self.name:
            longest = next((name for name in self.names if name.startswith("--")), self.names[0])
            self.name = longest.lstrip("-").replace("-", "_").lower()
        self.is_switch: bool = attributes.get("is_flag", bool(self.opposites))

    @property
    def multiple(self) -> bool:
        """Whether it may be repeated: the command gets a tuple."""
        return bool(self.attributes.get("multiple"))

    @property
    def exposed(self) -> bool:
        """Whether the command's function is told of it."""
        return bool(self.attributes.get("expose_value", True))

    @property
    def callback(self) -> Callable[[Any, str, Any], None] | None:
        """Called with the settings, the name and what was given, by click alone; must not mind None or the default."""
        return self.attributes.get("callback")


class Argument(_Parameter):
    """A word of the command line by its place, or with ``nargs=-1`` all that are left."""

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        self.name = name
        self.attributes = attributes

    @property
    def takes_rest(self) -> bool:
        """Whether it is all words that are left."""
        return bool(self.attributes.get("nargs", 1) == -1)

    @property
    def required(self) -> bool:
        """As click has it: a single word is, unless it has a default."""
        return bool(self.attributes.get("required", not self.takes_rest and "default" not in self.attributes))


def option(*declarations: str, **attributes: Any) -> Option:
    """An option in click's words, to decorate a function with."""
    return Option(declarations, attributes)


def argument(name: str, **attributes: Any) -> Argument:
    """An argument in click's words, to decorate a function with."""
    return Argument(name, attributes)


def image_argument(name: str = "image", **attributes: Any) -> Argument:
    """An argument that names an image in the store, with completion."""
    return Argument(name, {**attributes, "completes_images": True})


@dataclass(frozen=True, slots=True)
class Command:
    """One command. ``function`` gets the settings and, by name, every exposed parameter.

    ``examples`` are lines as a user would type them. With ``interspersed`` options may follow
    arguments; with ``loose`` an unknown one is an argument. ``others`` gives options that are
    looked at only when one is not known. With ``for_click`` the function gets click's context.
    """

    name: str
    function: Callable[..., None]
    parameters: tuple[Option | Argument, ...]
    short_help: str
    examples: str
    interspersed: bool
    loose: bool
    others: Callable[[], Sequence[Option]] | None
    for_click: bool


def command(
    name: str,
    *,
    short_help: str,
    examples: str = "",
    interspersed: bool = True,
    loose: bool = False,
    others: Callable[[], Sequence[Option]] | None = None,
    for_click: bool = False,
) -> Callable[[Callable[..., None]], Command]:
    """A decorator that makes a function, with the parameters it was decorated with, a ``Command``."""

    def declare(function: Callable[..., None]) -> Command:
        parameters = tuple(reversed(function.__dict__.get(_DECLARED, ())))
        return Command(name, function, parameters, short_help, examples, interspersed, loose, others, for_click)

    return declare


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, and what the list of commands says of it."""

    module: str
    attribute: str
    summary: str

    def load(self) -> Command:
        """The command; its module is imported now."""
        found = getattr(__import__(self.module, fromlist=("_",)), self.attribute)
        assert isinstance(found, Command)
        return found


class Group:
    """A group of commands, which are imported when they are called.

    ``sections`` maps a heading of the help to names and their entries. ``hidden`` names work
    and are not listed.
    """

    def __init__(
        self,
        name: str,
        *,
        sections: Mapping[str, Mapping[str, Entry | Group]],
        summary: str = "",
        help: str = "",  # noqa: A002 - click's word
        hidden: Mapping[str, Entry] | None = None,
        examples: str = "",
        options: tuple[Option, ...] = (),
    ) -> None:
        self.name = name
        self.sections = sections
        self.summary = summary
        self.help = help
        self.examples = examples
        self.options = options
        self.entries: dict[str, Entry | Group] = dict(hidden or {})
        for section in sections.values():
            self.entries.update(section)

    def listed(self) -> Iterator[str]:
        """The names that help shows, in its order."""
        for section in self.sections.values():
            yield from section


class Ended(Exception):
    """The command has ended, with an exit code of its own choice."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit {code}")
        self.code = code


class WrongUsage(Exception):
    """What was typed can't be meant. ``path`` is the command, such as ``tierce image rm``.

    ``about_flag``: one flag is wrong in itself; docker exits with another code then.
    """

    def __init__(self, message: str, *, about_flag: bool = False) -> None:
        super().__init__(message)
        self.path = ""
        self.about_flag = about_flag
