"""``--filter KEY=VALUE`` and what all commands understand by it.

Every label must be there, any value of another key will do, and all keys must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tierce.cli.declare import WrongUsage, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])


def filter_option(names: str, *spellings: str) -> Callable[[_F], _F]:
    """``--filter KEY=VALUE``, which may be repeated; ``names`` are the keys for the help."""
    return option(
        *spellings, "--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"Only what matches: {names}"
    )


def parse_filters(filters: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
    """``KEY=VALUE`` words by key. Raises WrongUsage for no value, InvalidInput for another key."""
    from image.errors import InvalidInput

    parsed: dict[str, list[str]] = {}
    for word in filters:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise WrongUsage(f"filter {word!r} is not KEY=VALUE", about_flag=True)
        if key not in known:
            raise InvalidInput(f"filter {key!r} is not known; there are: {', '.join(known)}")
        parsed.setdefault(key, []).append(value)
    return parsed


def has_labels(labels: Mapping[str, str], words: Iterable[str]) -> bool:
    """Whether all ``KEY`` and ``KEY=VALUE`` words are true of the labels."""
    pairs = [word.partition("=") for word in words]
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in pairs)


def passes_labels(labels: Mapping[str, str], wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether something with these labels passes the filters ``label`` and ``label!`` of a prune."""
    spared = any(has_labels(labels, [word]) for word in wanted.get("label!", ()))
    return not spared and has_labels(labels, wanted.get("label", ()))
