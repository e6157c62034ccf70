"""``system prune`` and ``image prune``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from image.errors import Cancelled, InvalidInput, TierceError
from runner.containers.control import Control
from store.metadata import CacheRecord, ImageRecord
from store.store import Store
from tierce.cli.command import Settings, confirm
from tierce.cli.containers import containers
from tierce.cli.declare import command, option
from tierce.cli.filters import filter_option, has_labels, parse_filters, passes_labels
from tierce.cli.output import echo
from tierce.cli.units import human_size, parse_time, parse_until
from tierce.images import familiar, labels
from tierce.prune import Pruned, picks_cached, picks_image, prune, prune_containers, prune_volumes

_FILTERS: Final = ("until", "label")

_all_option = option("-a", "--all", "everything", is_flag=True, help="Also what is named or in use by an image")
_force_option = option("-f", "--force", is_flag=True, help="Do not ask")


@command(
    "prune",
    short_help="Remove what is not needed",
    examples="""
tierce system prune
tierce system prune -a -f --volumes
tierce system prune --filter until=240h
""",
)
@_all_option
@option("--volumes", is_flag=True, help="Also anonymous volumes that no container uses")
@_force_option
@filter_option("until=DURATION|TIME, label=KEY[=VALUE]")
def system_prune(settings: Settings, everything: bool, volumes: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove stopped containers, unused networks, images without a name, build cache and files that nothing needs.

    With --all, every image that no container was made of, and the whole build cache.
    """
    wanted = parse_filters(filters, _FILTERS)
    if volumes and "until" in wanted:
        raise InvalidInput("the filter until is not possible together with --volumes: volumes have no age")
    _ask("system prune", _kinds(everything=everything, volumes=volumes), force=force)
    with containers(settings) as over:
        store = over.records.store
        lists, freed = _prune_what_runs(settings, over, wanted, volumes=volumes)
        pruned = prune(
            store,
            images=_image_test(settings, store, wanted, everything),
            cached=_cache_test(settings, store, wanted, everything),
        )
        _report(pruned, lists, freed)


def _kinds(*, everything: bool, volumes: bool) -> list[str]:
    """Docker's words for what will go."""
    unused = "not used by at least one container"
    return [
        "all stopped containers",
        f"all networks {unused}",
        *([f"all anonymous volumes {unused}"] if volumes else []),
        "all images without at least one container associated to them" if everything else "all dangling images",
        "all build cache" if everything else "unused build cache",
    ]


def _prune_what_runs(
    settings: Settings, over: Control, wanted: dict[str, list[str]], *, volumes: bool
) -> tuple[list[tuple[str, list[str]]], int]:
    """Containers, then the networks and volumes that none of the others uses: titles with names, and bytes."""
    from runner.network.networks import Networks
    from tierce.networks import remove_unused

    older = _older_than(settings, wanted)

    def passes(labels: Mapping[str, str], born_s: float) -> bool:
        return passes_labels(labels, wanted) and (older is None or born_s < older)

    gone, freed = prune_containers(over.records, lambda record: passes(record.labels, record.created_s))
    networks = remove_unused(
        Networks(settings.root / "networks"), over.root, lambda network: passes(dict(network.labels), network.created)
    )
    lists = [("Deleted Containers:", gone), ("Deleted Networks:", [network.name for network in networks])]
    if volumes:
        from runner.volumes.volumes import Volumes

        names, size = prune_volumes(
            over.records,
            Volumes(settings.root),
            lambda volume: volume.anonymous and passes_labels(dict(volume.labels), wanted),
        )
        lists.append(("Deleted Volumes:", names))
        freed += size
    return lists, freed


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
    echo("WARNING! This will remove:\n" + "".join(f"  - {kind}\n" for kind in kinds))
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


def _report(pruned: Pruned, lists: Sequence[tuple[str, Sequence[str]]] = (), freed: int = 0) -> None:
    """Docker's report of what went; ``lists`` and ``freed`` are what is no image and no cache."""
    lines = [line for title, names in lists if names for line in (title, *names, "")]
    if pruned.images:
        lines.append("Deleted Images:")
        for record in pruned.images:
            lines += [f"untagged: {familiar(name)}" for name in record.names]
            lines.append(f"deleted: {record.config}")
        lines.append("")
    if pruned.cached:
        lines += ["Deleted build cache objects:", *(record.key for record in pruned.cached), ""]
    echo("\n".join([*lines, f"Total reclaimed space: {human_size(pruned.reclaimed.size + freed)}"]))
