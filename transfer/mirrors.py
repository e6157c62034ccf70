"""Asking one place after the other until one answers: mirrors, and the meanings of a short name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from image.errors import Cancelled, TierceError

if TYPE_CHECKING:
    from transfer.registry.client import Repository

_P = TypeVar("_P")
_T = TypeVar("_T")


def first_answer(places: Sequence[_P], ask: Callable[[_P], _T], shown: Callable[[_P], str]) -> tuple[_P, _T]:
    """The first of ``places`` for which ``ask`` succeeds, and its result.

    Whatever goes wrong with one leads to the next, as with podman: one that is down, does not
    have the image, wants a password or sends something else. Raises the error of the last,
    which also tells what became of the others.
    """
    failures: list[str] = []
    for place in places[:-1]:
        try:
            return place, ask(place)
        except Cancelled:
            raise
        except TierceError as error:
            failures.append(f"{shown(place)}: {error}")
    try:
        return places[-1], ask(places[-1])
    except TierceError as error:
        if failures:
            error.args = (f"{error} (tried before: {'; '.join(failures)})",)
        raise


def ask_mirrors(repositories: Sequence[Repository], ask: Callable[[Repository], _T]) -> tuple[Repository, _T]:
    """``first_answer`` of repositories, the last of which is the registry itself.

    A mirror is asked once, as waiting for one that is down helps nobody; once chosen, it is
    as patiently asked for the rest of the image as any registry.
    """

    def once(repository: Repository) -> _T:
        patient = repository.retry
        if repository is not repositories[-1]:
            repository.retry = replace(patient, attempts=1)
        try:
            return ask(repository)
        finally:
            repository.retry = patient

    return first_answer(repositories, once, lambda repository: repository.name)
