"""``system prune`` and ``image prune``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from image.errors import Cancelled, TierceError
from store.metadata import CacheRecord, ImageRecord
from store.store import Store
from tierce.cli.command import Settings, command, confirm
from tierce.cli.filters import filter_option, has_labels, parse_filters
from tierce.cli.units import human_size, parse_time, parse_until
from tierce.images import familiar, labels
from tierce.prune import Pruned, picks_cached, picks_image, prune

_FILTERS: Final = ("until", "label")

_all_option = click.option("-a", "--all", "everything", is_flag=True, help="Also what is named or in use by an image")
_force_option = click.option("-f", "--force", is_flag=True, help="Do not ask")


@command(
    "prune",
    short_help="Remove what is not needed",
    examples="""
tierce system prune
tierce system prune -a -f
tierce system prune --filter until=240h
""",
)
@_all_option
@_force_option
@filter_option("until=DURATION|TIME, label=KEY[=VALUE]")
@click.pass_obj
def system_prune(settings: Settings, everything: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove images without a name, build cache that no image uses, and unused files.

    With --all, every image and the whole build cache.
    """
    kinds = ["all images", "all build cache"] if everything else ["all dangling images", "unused build cache"]
    _ask("system prune", kinds, force=force)
    wanted = parse_filters(filters, _FILTERS)
    with settings.store() as store:
        _report(
            prune(
                store,
                images=_image_test(settings, store, wanted, everything),
                cached=_cache_test(settings, store, wanted, everything),
            )
        )


@command(
    "prune",
    short_help="Remove images that nothing names",
    examples="""
tierce image prune -f
tierce image prune -a --filter until=24h
""",
)
@_all_option
@_force_option
@filter_option("until=DURATION|TIME, label=KEY[=VALUE]")
@click.pass_obj
def image_prune(settings: Settings, everything: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove images without a name; with --all, every image."""
    _ask("image prune", ["all images" if everything else "all dangling images"], force=force)
    wanted = parse_filters(filters, _FILTERS)
    with settings.store() as store:
        _report(prune(store, images=_image_test(settings, store, wanted, everything)))


def _ask(what: str, kinds: Sequence[str], *, force: bool) -> None:
    """Raises Cancelled unless the user agrees."""
    if force:
        return
    click.echo("WARNING! This will remove:\n" + "".join(f"  - {kind}\n" for kind in kinds))
    if not confirm("Are you sure you want to continue?"):
        raise Cancelled(f"{what} has been cancelled")


def _image_test(
    settings: Settings, store: Store, wanted: dict[str, list[str]], everything: bool
) -> Callable[[ImageRecord], bool]:
    older = _older_than(settings, wanted)
    words = wanted.get("label", [])

    def labelled(record: ImageRecord) -> bool:
        return not words or has_labels(labels(store.content, record), words)

    return picks_image(everything=everything, older_than_s=older, created=parse_time, labels=labelled)


def _cache_test(
    settings: Settings, store: Store, wanted: dict[str, list[str]], everything: bool
) -> Callable[[CacheRecord], bool]:
    older = _older_than(settings, wanted)
    if "label" in wanted:  # cached steps have no labels
        return lambda _: False
    if everything:
        return picks_cached(older_than_s=older)
    used = _chains_of_images(store)
    spare = [record.key for record in store.metadata.cache() if str(record.chain_id) not in used]
    return picks_cached(older_than_s=older, keys=spare)


def _chains_of_images(store: Store) -> set[str]:
    chains: set[str] = set()
    for record in store.metadata.images():
        try:
            chains |= {str(layer.chain_id) for layer in store.facts(record.target).layers}
        except TierceError:  # a damaged image uses nothing; system check tells
            continue
    return chains


def _older_than(settings: Settings, wanted: dict[str, list[str]]) -> float | None:
    limits = [parse_until(text, settings.clock()) for text in wanted.get("until", ())]
    return min(limits) if limits else None


def _report(pruned: Pruned) -> None:
    """Docker's report of what went."""
    lines = []
    if pruned.images:
        lines.append("Deleted Images:")
        for record in pruned.images:
            lines += [f"untagged: {familiar(name)}" for name in record.names]
            lines.append(f"deleted: {record.config}")
        lines.append("")
    if pruned.cached:
        lines += ["Deleted build cache objects:", *(record.key for record in pruned.cached), ""]
    click.echo("\n".join([*lines, f"Total reclaimed space: {human_size(pruned.reclaimed.size)}"]))
