"""Which containers a command is for: those that it names, or podman's ``--all``, ``--filter`` and ``--latest``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from image.errors import ContainerNotFound
from tierce.cli.declare import WrongUsage, argument, option
from tierce.cli.filters import filter_option, parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from runner.containers.control import Control
    from runner.containers.records import Records, State

    _F = TypeVar("_F", bound=Callable[..., Any])

_NAMES = "CONTAINER [CONTAINER...]"
_LATEST = "The container that was created last"

name_argument = argument("word", required=False, default="", metavar="CONTAINER")
names_argument = argument("words", nargs=-1, metavar=_NAMES)
latest_option = option("-l", "--latest", is_flag=True, help=_LATEST)


def choosing(*letters: str) -> Callable[[_F], _F]:
    """Names and the flags that replace them, with these one-letter spellings; the command gets them for ``choose``."""

    def decorate(function: _F) -> _F:
        short = {letter: (f"-{letter}",) if letter in letters else () for letter in "alf"}
        filter_option("those of tierce ps", *short["f"])(function)
        (latest_option if "l" in letters else option("--latest", is_flag=True, help=_LATEST))(function)
        option(*short["a"], "--all", "everything", is_flag=True, help="All that it can be done to")(function)
        return names_argument(function)

    return decorate


def choose(over: Control, choice: Mapping[str, Any], fitting: Callable[[State], bool]) -> Sequence[str]:
    """The words for containers, or the ids of all that are ``fitting``. Raises WrongUsage, NotFound, InvalidInput."""
    words: Sequence[str] = choice["words"]
    given = [flag for flag in ("everything", "latest", "filters") if choice[flag]]
    spelled = {"everything": "--all", "latest": "--latest", "filters": "--filter"}
    if given and words:
        raise WrongUsage(f"{spelled[given[0]]} chooses the containers: name none", about_flag=True)
    if choice["everything"] and choice["latest"]:
        raise WrongUsage("--all and --latest exclude each other", about_flag=True)
    if not given:
        return several(over, words, latest=False)
    if choice["filters"]:
        from tierce.cli.ps import FILTERS, select

        found = select(over.records, parse_filters(choice["filters"], FILTERS))
    else:
        found = over.records.all()
    if choice["latest"]:
        newest = latest_of(over.records)
        return [record.id for record in found if record.id == newest]
    return [record.id for record in found if fitting(record.state)]


def latest_of(records: Records) -> str:
    """The id of the container that was created last. Raises ContainerNotFound when there is none."""
    found = records.all()
    if not found:
        raise ContainerNotFound("no such container: there is none")
    return found[0].id


def several(over: Control, words: Sequence[str], *, latest: bool) -> Sequence[str]:
    """The words, or the latest container. Raises WrongUsage, ContainerNotFound."""
    if latest and words:
        raise WrongUsage("--latest chooses the container: name none", about_flag=True)
    if not latest and not words:
        raise WrongUsage(f"missing argument '{_NAMES}'")
    return [latest_of(over.records)] if latest else words


def single(over: Control, word: str, *, latest: bool) -> str:
    """The word, or the latest container. Raises WrongUsage, ContainerNotFound."""
    if not word and not latest:
        raise WrongUsage("missing argument 'CONTAINER'")
    return several(over, [word] if word else [], latest=latest)[0]


def first_and_rest(words: Sequence[str], *, latest: bool) -> tuple[str, Sequence[str]]:
    """The container's name before the other words, which it is not where the latest is meant."""
    return ("", words) if latest else (words[0] if words else "", words[1:])
