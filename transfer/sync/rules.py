"""What to keep equal to what: the rules that both dialects of configuration are read into."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from image.descriptor import Descriptor
from image.errors import InvalidInput
from image.platform import Platform
from image.value import dataclass, field
from transfer.digest_tags import digest_of
from transfer.sync.semver import Range, Version

Kind = Literal["registry", "repository", "image"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which names of a list are wanted: in a range if there are any, allowed if anything is, and not denied.

    Patterns match a whole name.
    """

    allow: tuple[re.Pattern[str], ...] = ()
    deny: tuple[re.Pattern[str], ...] = ()
    ranges: tuple[Range, ...] = ()

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str)
        if self.ranges:
            version = Version.parse(name)
            if version is None or not any(version in one for one in self.ranges):
                return False
        if self.allow and not any(pattern.fullmatch(name) for pattern in self.allow):
            return False
        return not any(pattern.fullmatch(name) for pattern in self.deny)


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression of a user's. Raises InvalidInput."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidInput(f"{text!r} is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True)
class Floor:
    """Stop pulling while the registry says that fewer than ``pulls`` remain; look again after ``retry_s`` seconds."""

    pulls: int = 0
    retry_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ReferrerFilter:
    """Referrers that are wanted: of this type ("" for any), with these annotations ("" for any value)."""

    artifact_type: str = ""
    annotations: tuple[tuple[str, str], ...] = ()

    def fits(self, referrer: Descriptor) -> bool:
        said = referrer.annotations
        return self.artifact_type in {"", referrer.artifact_type} and all(
            name in said and value in {"", said[name]} for name, value in self.annotations
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to keep equal to another.

    ``source`` and ``target`` are addresses as ``copy`` takes them: whole for an image, without
    a tag for a repository, ``docker://HOST`` for a registry. ``tags`` are named outright
    (digests too); else those of ``selections`` are taken, or all. ``backup`` is a template for the name
    that what a copy replaces gets. ``due`` says when: a cron expression, ``@every 3600s``, or
    "" for whenever it is asked for.
    """

    kind: Kind
    source: str
    target: str
    tags: tuple[str, ...] = ()
    selections: tuple[Selection, ...] = ()
    repositories: Selection = field(default=Selection())
    """Those of a registry."""
    platforms: tuple[Platform, ...] = ()
    companions: bool = True
    """Whether tags that sign or describe a chosen image (``sha256-….sig``) belong to it."""
    referrers: bool = True
    """Whether what refers to a chosen image in the registry comes along."""
    referrer_filters: tuple[ReferrerFilter, ...] = ()
    """Of referrers, those that one of these fits; all where there are none."""
    recheck: bool = False
    """Whether the source is asked for new referrers of images that have not changed."""
    media_types: frozenset[str] = frozenset()
    """Of manifests that are copied; none means any."""
    always: bool = False
    """Whether an image that has not changed is gone through again, to its last blob."""
    backup: str = ""
    floor: Floor = field(default=Floor())
    due: str = ""

    def wants_referrer(self, referrer: Descriptor) -> bool:
        return not self.referrer_filters or any(one.fits(referrer) for one in self.referrer_filters)

    def chosen(self, tags: Iterable[str]) -> tuple[str, ...]:
        """Those of a repository's tags that are wanted, without companions, in their order."""
        images = [tag for tag in tags if digest_of(tag) is None]
        if not self.selections:
            return tuple(images)
        return tuple(tag for tag in images if any(tag in selection for selection in self.selections))


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one registry, where a file says so. ``password`` never shows."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    insecure: bool = False
    certificates: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole file. ``access`` is by host; ``parallel`` images at once, 0 for what the command chooses."""

    rules: tuple[Rule, ...]
    access: Mapping[str, Access] = field(default_factory=dict)
    parallel: int = 0
    own_credentials: bool = True
    """Whether the user's own credential files are asked too."""
