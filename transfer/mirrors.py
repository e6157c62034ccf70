"""Asking one place after the other until one answers: mirrors, and the meanings of a short name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from image.errors import Cancelled, TierceError
from image.value import replace

if TYPE_CHECKING:
    from transfer.registries_conf.values import Place
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


class PullPlaces:
    """The places that have an image by the configuration: its mirrors, the registry itself last (unless blocked).

    Each is opened, and its password looked for, when its turn comes.
    """

    def __init__(self, places: Sequence[Place], open_place: Callable[[Place], Repository]) -> None:
        self._places = places
        self._open_place = open_place
        self._lock = threading.Lock()
        self._opened: list[Repository] = []
        self._aborted = False

    def ask(self, ask: Callable[[Repository], _T]) -> tuple[Repository, _T]:
        """The first place that answers, and its answer. See ``first_answer`` for errors.

        A mirror is asked once, as waiting for one that is down helps nobody; once chosen, it
        is as patiently asked for the rest of the image as any registry.
        """

        def once(place: Place) -> tuple[Repository, _T]:
            repository = self._open(place)
            patient = repository.retry
            if place is not self._places[-1]:
                repository.retry = replace(patient, attempts=1)
            try:
                return repository, ask(repository)
            finally:
                repository.retry = patient

        return first_answer(self._places, once, lambda place: place.reference.repository)[1]

    def _open(self, place: Place) -> Repository:
        repository = self._open_place(place)
        with self._lock:
            self._opened.append(repository)
            if self._aborted:
                repository.transport.abort()
        return repository

    def abort(self) -> None:
        """Stop whatever is under way with any of them; later questions raise Cancelled."""
        with self._lock:
            self._aborted = True
            for repository in self._opened:
                repository.transport.abort()
