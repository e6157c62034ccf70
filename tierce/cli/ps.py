"""``ps``: the list of containers, and docker's words for how they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from image.errors import InvalidInput
from runner.containers.records import Record, Records, read_health
from runner.network.wishes import network_names
from tierce.cli.command import Settings, format_option
from tierce.cli.containers import containers
from tierce.cli.declare import command, option
from tierce.cli.filters import filter_option, has_labels, parse_filters
from tierce.cli.output import echo
from tierce.cli.tables import render
from tierce.cli.units import human_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

HEADERS: Final = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
    "Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Labels": "LABELS", "Networks": "NETWORKS",
    "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE",
}  # fmt: skip
_COLUMNS: Final = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
FILTERS: Final = (
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status",
    "volume",
)  # fmt: skip
_COMMAND_WIDTH: Final = 20


@command(
    "ps",
    short_help="List containers",
    examples="""
tierce ps
tierce ps -a --filter status=exited
tierce ps -q --filter label=app=web
tierce ps --format '{{.Names}}: {{.Status}}'
""",
)
@option("-a", "--all", "everything", is_flag=True, help="Those that do not run too")
@option("-q", "--quiet", is_flag=True, help="Only ids")
@option("--no-trunc", is_flag=True, help="Whole ids and commands")
@option("-n", "--last", type=int, default=-1, metavar="N", help="The last N that were created")
@option("-s", "--size", "sized", is_flag=True, help="How large their own files are, and with those of the image")
@option("-l", "--latest", is_flag=True, help="The last that was created")
@filter_option(", ".join(FILTERS), "-f")
@format_option
def ps(
    settings: Settings, everything: bool, quiet: bool, no_trunc: bool, last: int, sized: bool, latest: bool,
    filters: Sequence[str], form: str,
) -> None:  # fmt: skip
    """List containers, newest first."""
    wanted = parse_filters(filters, FILTERS)
    count = 1 if latest else last
    with containers(settings) as over:
        records = select(over.records, wanted)
        if not (everything or count >= 0 or "status" in wanted or "exited" in wanted):
            records = [record for record in records if record.state.is_running or record.state.status == "restarting"]
        records = records[:count] if count >= 0 else records
        rows = [_row(over.records, record, settings.clock(), whole=no_trunc) for record in records]
        if sized or ".Size" in form:
            for row, record in zip(rows, records, strict=True):
                row["Size"] = _size(over.records, record)
    if quiet and not form:
        echo("".join(f"{row['ID']}\n" for row in rows), nl=False)
        return
    echo(render(rows, HEADERS, (*_COLUMNS, "Size") if sized else _COLUMNS, form), nl=False)


def select(records: Records, filters: Mapping[str, Sequence[str]]) -> list[Record]:
    """The containers that pass every filter. Raises InvalidInput, ContainerNotFound."""
    found = records.all()
    for key, values in filters.items():
        found = [record for record in found if _passes(records, record, key, values)]
    return found


def _passes(records: Records, record: Record, key: str, values: Sequence[str]) -> bool:
    made, state = record.made, record.state
    match key:
        case "status":
            return state.status in values
        case "name":
            return any(value.removeprefix("/") in record.name for value in values)
        case "id" | "exited":
            ended = [str(state.code)] if state.status == "exited" else []
            return any(record.id.startswith(value) for value in values) if key == "id" else ended[:1] == [*values][-1:]
        case "ancestor":
            from image.reference import Reference

            own = Reference.parse(made.image_name).with_default_tag() if made.image_name else None
            return any(
                record.image.removeprefix("sha256:").startswith(value.removeprefix("sha256:"))
                or str(own) == str(Reference.parse(value).with_default_tag())
                for value in values
            )
        case "label":
            return has_labels(record.labels, values)
        case "volume":
            return any(value in (mount.source, mount.target) for mount in made.options.mounts for value in values)
        case "network":
            known = {*network_names(made.options.network), *(identity for _, identity, _ in state.networks)}
            return not known.isdisjoint(values)
        case "publish" | "expose":
            return not _ports_of(record, key).isdisjoint(port for value in values for port in _inner(value))
        case "health":
            return str((read_health(records.directory(record.id)) or {}).get("Status", "none")) in values
        case _:
            older = [record.created_s < records.get(value).created_s for value in values]
            return all(older) if key == "before" else not any(older) and record.id not in map(_id_of(records), values)


def _ports_of(record: Record, key: str) -> set[str]:
    """Ports of the container, as ``80/tcp``: those that are published, or all that image and user expose."""
    made = record.made
    published = {port for text in made.options.publish for port in _inner(text)}
    if key == "publish":
        return published
    return published.union(*map(_inner, (*made.config.exposed_ports, *made.options.expose)))


def _inner(text: str) -> set[str]:
    """The container's side of what ``--publish`` or ``--expose`` says. Raises InvalidInput."""
    from runner.network.ports import parse_publish

    return {f"{port.container_port}/{port.protocol}" for port in parse_publish(text)}


def _id_of(records: Records) -> Callable[[str], str]:
    return lambda word: records.get(word).id


def _row(records: Records, record: Record, now_s: float, *, whole: bool) -> dict[str, str]:
    from runner.containers.options import command as command_of

    try:
        words = " ".join(command_of(record.made.options, record.made.config))
    except InvalidInput:
        words = ""
    shown = words if whole or len(words) <= _COMMAND_WIDTH else words[: _COMMAND_WIDTH - 1] + "\u2026"
    mounts = [mount.source or mount.target for mount in record.made.options.mounts]
    return {
        "ID": record.id if whole else record.id[:12],
        "Image": record.made.image_name,
        "Command": f'"{shown}"',
        "CreatedAt": _local_time(record.created_s),
        "RunningFor": human_duration(now_s - record.created_s) + " ago",
        "Status": describe_status(records, record, now_s),
        "State": record.state.status,
        "Ports": ", ".join((*_exposed(record), *record.state.ports)),
        "Names": record.name,
        "Labels": ",".join(f"{key}={value}" for key, value in record.labels.items()),
        "Networks": ",".join(network_names(record.made.options.network)),
        "Mounts": ",".join(mounts),
        "LocalVolumes": str(sum(mount.kind == "volume" for mount in record.made.options.mounts)),
        "Size": "0B",
    }


def _exposed(record: Record) -> list[str]:
    """Ports of a running container that siblings reach and that are not published, as ``80/tcp``."""
    made, state = record.made, record.state
    if not (state.is_running and any(driver == "bridge" for _, _, driver in state.networks)):
        return []
    found = [text if "/" in text else f"{text}/tcp" for text in made.config.exposed_ports]
    found += [port for text in made.options.expose for port in sorted(_inner(text))]
    published = {text.rpartition("->")[2] for text in state.ports}
    return [port for port in dict.fromkeys(found) if port not in published]


def _size(records: Records, record: Record) -> str:
    """Its own files, and all with those of the image."""
    from tierce.cli.units import human_size
    from tierce.usage import container_size, layers_size

    own = container_size(records.store, record)
    return f"{human_size(own)} (virtual {human_size(own + layers_size(records.store, record.made.layers))})"


def _local_time(moment_s: float) -> str:
    from datetime import UTC, datetime

    from tierce.cli.units import go_time

    return go_time(datetime.fromtimestamp(moment_s, UTC))


def describe_status(records: Records, record: Record, now_s: float) -> str:
    """``Up 2 minutes (healthy)``, ``Exited (0) 3 seconds ago``: docker's words."""
    state = record.state
    match state.status:
        case "running" | "paused":
            health = read_health(records.directory(record.id)) or {}
            words = {"starting": " (health: starting)", "healthy": " (healthy)", "unhealthy": " (unhealthy)"}
            more = " (Paused)" if state.status == "paused" else words.get(str(health.get("Status", "")), "")
            return f"Up {human_duration(now_s - state.started_s)}{more}"
        case "restarting":
            return f"Restarting ({state.code}) {human_duration(now_s - state.finished_s)} ago"
        case "exited":
            return f"Exited ({state.code}) {human_duration(now_s - state.finished_s)} ago"
        case _:
            return state.status.capitalize()
