"""From what both sides have to what is to be done: steps, as values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import InvalidInput
from image.value import dataclass
from transfer.sync.rules import Rule

Action = Literal["copy", "unchanged", "leave"]
_TRANSPORT: Final = "docker://"


@dataclass(frozen=True, slots=True)
class Pair:
    """One image and where it belongs, as addresses. ``tag`` is "" for an image named whole."""

    rule: Rule
    source: str
    target: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with one image, and why. ``backup`` is an address, "" for none.

    ``pulls`` are the manifests that a copy has to fetch, at least: one, and for an index one
    for each image in it, whose number is known only to who has fetched it.
    """

    pair: Pair
    action: Action
    why: str
    source: Descriptor
    target: Digest | None = None
    backup: str = ""
    pulls: int = 0

    @property
    def pulls_are_exact(self) -> bool:
        return self.action != "copy" or self.source.media_type not in media_types.INDEXES


@dataclass(frozen=True, slots=True)
class Removal:
    """A tag at the target that the source does not have. ``kept`` says why it stays after all."""

    rule: Rule
    target: str
    digest: Digest | None
    kept: str = ""


def at(place: str, tag: str) -> str:
    """The address of a tag, or of a digest, of a repository."""
    if not tag:
        return place
    return f"{place}@{tag}" if ":" in tag and not place.startswith("oci:") else f"{place}:{tag}"


def pair_of(rule: Rule, tag: str) -> Pair:
    """What a rule says of one tag of its repository."""
    return Pair(rule, at(rule.source, tag), at(rule.target, tag), tag)


def decide(
    pair: Pair, source: Descriptor, target: Descriptor | None, *, wanted: Digest, backup: Callable[[Pair], str],
    missing_only: bool = False,
) -> Step:  # fmt: skip
    """Copy or not. ``wanted`` is the digest that a copy would have; ``backup`` expands the rule's template."""
    rule, had = pair.rule, target.digest if target else None
    if rule.media_types and source.media_type not in rule.media_types:
        return Step(pair, "leave", f"{source.media_type} is not in mediaTypes", source, had)
    if had == wanted and not rule.always:
        return Step(pair, "unchanged", "", source, had)
    if missing_only and had is not None:
        return Step(pair, "leave", "only what is missing is copied", source, had)
    why = "new" if had is None else "checked again" if had == wanted else "changed"
    saved = backup(pair) if rule.backup and why == "changed" else ""
    return Step(pair, "copy", why, source, had, saved, pulls=1)


def backup_address(target: str, name: str) -> str:
    """What a backup's template came to, as an address: a tag beside the target, or a whole reference.

    Raises InvalidInput.
    """
    name = name.strip()
    if not name:
        raise InvalidInput("the backup template gives no name")
    if ":" in name or "/" in name:
        return f"{_TRANSPORT}{name}"
    place, _, last = target.rpartition(":")
    if not place.startswith((_TRANSPORT, "oci:")) or "/" in last:
        raise InvalidInput(f"{target} has no tag that a backup beside it could be told from")
    return at(place, name)


def removals(
    rule: Rule, tags: Iterable[str], wanted: Iterable[str], digests: Mapping[str, Digest | None]
) -> tuple[Removal, ...]:
    """The tags of a target that its source does not have (any more).

    A registry deletes manifests, not tags: a tag stays whose manifest a wanted tag needs.
    ``digests`` has those of all tags.
    """
    wanted = set(wanted)
    needed: dict[Digest, str] = {}
    for tag in wanted:
        if (digest := digests.get(tag)) is not None:
            needed.setdefault(digest, tag)
    found = []
    for tag in tags:
        if tag in wanted:
            continue
        digest = digests.get(tag)
        kept = f"its manifest is also {needed[digest]}" if digest in needed else ""
        found.append(Removal(rule, at(rule.target, tag), digest, kept))
    return tuple(found)
