"""Named contexts: ``--build-context`` gives a name another meaning than the Dockerfile does.

Such a name stands before stages and images, in FROM, ``--from`` and ``RUN --mount``. Given as
``NAME::PLATFORM`` it does so for that platform alone, before what the name stands for elsewhere.

Spec: dockerfile.md 1.3 (FROM), 5 (``--build-context``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from image.errors import InvalidReference
from image.platform import Platform
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
    """A name in the one form that it is looked up by: ``Alpine``, ``alpine:latest`` and ``alpine`` are the same.

    ``::PLATFORM`` behind it becomes the platform's own spelling. Raises InvalidPlatform.
    """
    written, separator, platform = text.partition("::")
    name = written.lower()
    with suppress(InvalidReference):
        name = Reference.parse(name).familiar.removesuffix(":latest")
    return f"{name}::{Platform.parse(platform)}" if separator else name


def find_context(
    contexts: Mapping[str, NamedContext], name: str, platform: Platform
) -> tuple[str, NamedContext] | None:
    """What was given under a name for a platform, or for any; and the form of the name that it is known by."""
    if not contexts or not name or "::" in name:
        return None
    known = context_name(name)
    for key in (f"{known}::{platform}", known):
        if (given := contexts.get(key)) is not None:
            return key, given
    return None
