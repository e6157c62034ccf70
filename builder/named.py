"""Named contexts: ``--build-context`` gives a name another meaning than the Dockerfile does.

Such a name stands before stages and images, in FROM, ``--from`` and ``RUN --mount``.

Spec: dockerfile.md 1.3 (FROM), 5 (``--build-context``).
"""

from __future__ import annotations

from collections.abc import Mapping

from image.errors import InvalidReference
from image.reference import Reference
from image.value import dataclass


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image, looked up when it is needed."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """A directory, among the build's contexts under its name."""


NamedContext = NamedImage | NamedFiles


def context_name(text: str) -> str:
    """A name in the one form that it is looked up by: ``Alpine``, ``alpine:latest`` and ``alpine`` are the same."""
    name = text.lower()
    try:
        return Reference.parse(name).familiar.removesuffix(":latest")
    except InvalidReference:
        return name


def find_context(contexts: Mapping[str, NamedContext], name: str) -> tuple[str, NamedContext] | None:
    """What was given under a name, and the form of the name that it is known by."""
    if not contexts or not name:
        return None
    known = context_name(name)
    given = contexts.get(known)
    return None if given is None else (known, given)
