"""``builder du``."""

from __future__ import annotations

from typing import Final

import click

from store.metadata import CacheRecord
from tierce.cli.command import Settings, command, format_option
from tierce.cli.system import cache_table
from tierce.cli.tables import render
from tierce.cli.units import human_duration, human_size
from tierce.usage import measure

HEADERS: Final = {
    "ID": "CACHE ID", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED",
    "UsageCount": "USAGE", "Description": "DESCRIPTION",
}  # fmt: skip


@command(
    "du",
    short_help="Show what the build cache holds",
    examples="""
tierce builder du
tierce builder du --format '{{.Size}} {{.Description}}'
""",
)
@format_option
@click.pass_obj
def du(settings: Settings, form: str) -> None:
    """Show the results of build steps that later builds can use, most recently used first."""
    with settings.store() as store:
        usage = measure(store)
    now_s = settings.clock()
    if form and form != "table":
        rows = [cache_row(record, now_s) for record in usage.cache]
        click.echo(render(rows, HEADERS, list(HEADERS), form), nl=False)
        return
    click.echo(cache_table(usage, now_s), nl=False)
    click.echo(f"Total: {human_size(usage.cache_size)} that images do not need")


def cache_row(record: CacheRecord, now_s: float) -> dict[str, str]:
    """One cached step for templates, with nothing cut."""
    return {
        "ID": record.key, "Size": human_size(record.size), "UsageCount": str(record.uses), "Description": record.label,
        "CreatedSince": f"{human_duration(now_s - record.created_s)} ago",
        "LastUsedSince": f"{human_duration(now_s - record.used_s)} ago",
    }  # fmt: skip
