"""``builder du`` and ``builder prune``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from image.errors import Cancelled
from tierce.cli.command import Settings, confirm, format_option
from tierce.cli.declare import command, option
from tierce.cli.filters import filter_option, parse_filters
from tierce.cli.output import echo
from tierce.cli.tables import align, render
from tierce.cli.units import human_duration, human_size, parse_size, parse_until

if TYPE_CHECKING:
    from tierce.build.usage import CacheItem, Wish

HEADERS: Final = {
    "ID": "CACHE ID", "Type": "TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED",
    "UsageCount": "USAGE", "Shared": "SHARED", "InUse": "IN USE", "Description": "DESCRIPTION",
}  # fmt: skip
_FILTERS: Final = "until=DURATION|TIME, id=, type=, inuse, shared, private, description="
_BARE: Final = frozenset({"inuse", "shared", "private"})
_LABEL_WIDTH: Final = 60


@command(
    "du",
    short_help="Show what the build cache holds",
    examples="""
tierce builder du
tierce builder du -v --filter type=exec.cachemount
tierce builder du --format '{{.Size}} {{.Description}}'
""",
)
@option("-v", "--verbose", is_flag=True, help="All about each item")
@filter_option(_FILTERS)
@format_option
def du(settings: Settings, verbose: bool, filters: Sequence[str], form: str) -> None:
    """Show the results of steps and the cache mounts that later builds can use, the last used first.

    A size is what would be free on the disk without the item: what an image needs as well counts for the image.
    """
    from tierce.build.usage import cache_items

    now_s = settings.clock()
    wish = _wish(filters, now_s, everything=True)
    with settings.store() as store:
        items = [item for item in cache_items(store) if wish.means(item)]
    if form and form != "table":
        echo(render([_row(item, now_s) for item in items], HEADERS, list(HEADERS), form), nl=False)
        return
    text = "".join(_block(item, now_s) for item in items) if verbose else _table(items, now_s)
    echo(text, nl=False)
    total = sum(item.size for item in items)
    busy = sum(item.size for item in items if item.in_use)
    echo(f"Reclaimable: {human_size(total - busy)}\nTotal: {human_size(total)}")


@command(
    "prune",
    short_help="Remove build cache",
    examples="""
tierce builder prune -f
tierce builder prune -a -f --filter until=24h
tierce builder prune -a -f --max-used-space 10GB --reserved-space 2GB
tierce builder prune -f --filter type=exec.cachemount
""",
)
@option("-a", "--all", "everything", is_flag=True, help="Also what images use as well")
@option("-f", "--force", is_flag=True, help="Do not ask")
@option("--reserved-space", "--keep-storage", metavar="BYTES", help="Keep this much of what was used last")
@option("--max-used-space", metavar="BYTES", help="Shrink the cache to this size")
@option("--min-free-space", metavar="BYTES", help="Shrink the cache until this much of the disk is free")
@option("-v", "--verbose", is_flag=True, help="All about each item that went")
@filter_option(_FILTERS)
def prune(
    settings: Settings, everything: bool, force: bool, reserved_space: str | None, max_used_space: str | None,
    min_free_space: str | None, verbose: bool, filters: Sequence[str],
) -> None:  # fmt: skip
    """Remove build cache that no image uses; with --all, the whole of it.

    With a bound, only as much as it asks for, the least recently used first. What a running
    build uses stays. Nothing is ever removed unless this command is given.
    """
    from tierce.build.usage import Caps, prune_cache

    sizes = [parse_size(text) if text else 0 for text in (reserved_space, max_used_space, min_free_space)]
    now_s = settings.clock()
    wish = _wish(filters, now_s, everything=everything)
    if not force:
        kind = "all build cache" if everything else "all dangling build cache"
        echo(f"WARNING! This will remove:\n  - {kind}\n")
        if not confirm("Are you sure you want to continue?"):
            raise Cancelled("builder prune has been cancelled")
    with settings.store() as store:
        gone, reclaimed = prune_cache(store, wish, Caps(*sizes))
    if verbose:
        echo("".join(_block(item, now_s) for item in gone), nl=False)
    elif gone:
        echo("\n".join(["Deleted build cache objects:", *(item.id for item in gone), ""]))
    echo(f"Total reclaimed space: {human_size(reclaimed.size)}")


def _wish(filters: Sequence[str], now_s: float, *, everything: bool) -> Wish:
    from tierce.build.usage import parse_wish

    words = [f"{word}=true" if word in _BARE else word.replace("~=", "=", 1) for word in filters]
    known = ("until", "id", "type", "inuse", "shared", "private", "description")
    parsed = parse_filters(words, known)
    limits = [parse_until(text, now_s) for text in parsed.pop("until", ())]
    pairs = [(name, value) for name, values in parsed.items() for value in values]
    return parse_wish(pairs, min(limits) if limits else None, everything=everything)


def _row(item: CacheItem, now_s: float) -> dict[str, str]:
    """One item for templates, with nothing cut."""
    return {
        "ID": item.id, "Type": item.kind, "Size": human_size(item.size), "UsageCount": str(item.uses),
        "CreatedSince": f"{human_duration(now_s - item.created_s)} ago",
        "LastUsedSince": f"{human_duration(now_s - item.used_s)} ago",
        "Shared": str(item.shared).lower(), "InUse": str(item.in_use).lower(), "Description": item.description,
    }  # fmt: skip


def _table(items: Iterable[CacheItem], now_s: float) -> str:
    shown = ("ID", "Type", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Description")
    rows = [[HEADERS[name] for name in shown]]
    for item in items:
        row = _row(item, now_s)
        label = row["Description"]
        row["Description"] = label if len(label) <= _LABEL_WIDTH else label[: _LABEL_WIDTH - 1] + "\u2026"
        row["ID"] = item.id[:12] + ("*" if item.shared else "")
        rows.append([row[name] for name in shown])
    return align(rows)


def _block(item: CacheItem, now_s: float) -> str:
    """An item as ``docker buildx du --verbose`` shows one."""
    row = _row(item, now_s)
    facts = {
        "ID": row["ID"], "Created": row["CreatedSince"], "Reclaimable": str(not item.in_use).lower(),
        "Shared": row["Shared"], "Size": row["Size"], "Description": row["Description"], "Usage count": row["UsageCount"],
        "Last used": row["LastUsedSince"], "Type": row["Type"],
    }  # fmt: skip
    return "".join(f"{name + ':':<15}{value}\n" for name, value in facts.items()) + "\n"
