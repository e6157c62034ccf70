"""``volume create``, ``ls``, ``inspect``, ``rm`` and ``prune``, with docker's flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from image.errors import Cancelled, InvalidInput, TierceError, VolumeNotFound
from runner.volumes.long_form import pairs
from runner.volumes.volumes import DRIVER, Volume, Volumes
from tierce.cli.command import Settings, confirm, format_option
from tierce.cli.declare import Ended, argument, command, option
from tierce.cli.filters import filter_option, has_labels, parse_filters, passes_labels
from tierce.cli.output import echo
from tierce.cli.tables import render, render_documents
from tierce.cli.units import human_size

_HEADERS: Final = {
    "Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
}  # fmt: skip
_SCOPE: Final = "local"
_NOT_MEASURED: Final = "N/A"


@command(
    "create",
    short_help="Make a volume",
    examples="""
tierce volume create data
tierce volume create --label project=web --opt type=tmpfs --opt device=tmpfs --opt o=size=100m scratch
""",
)
@argument("name", default="", metavar="[VOLUME]")
@option("-d", "--driver", default=DRIVER, metavar="DRIVER", help="Only local")
@option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Put a label on it")
@option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", help="What it mounts: type, o and device")
def create(settings: Settings, name: str, driver: str, labels: Sequence[str], options: Sequence[str]) -> None:
    """Make a volume and print its name; without a name it is anonymous.

    A volume that exists is left as it is.
    """
    made = _volumes(settings).create(name, driver=driver, labels=pairs(labels), options=pairs(options))
    echo(made.name)


@command(
    "ls",
    short_help="List volumes",
    examples="""
tierce volume ls
tierce volume ls --filter dangling=true -q
tierce volume ls --format '{{.Name}} {{.Mountpoint}}'
""",
)
@option("-q", "--quiet", is_flag=True, help="Only names")
@filter_option("dangling=true|false, driver=NAME, label=KEY[=VALUE], name=PART", "-f")
@format_option
def ls(settings: Settings, quiet: bool, filters: Sequence[str], form: str) -> None:
    """List the volumes, by name."""
    wanted = parse_filters(filters, ("dangling", "driver", "label", "name"))
    volumes, users = _volumes(settings), _users(settings) if "dangling" in wanted else {}
    chosen = [volume for volume in volumes.all() if _passes(volume, wanted, volumes, users)]
    if quiet and not form:
        echo("".join(f"{volume.name}\n" for volume in chosen), nl=False)
        return
    echo(render([_row(volume) for volume in chosen], _HEADERS, ["Driver", "Name"], form), nl=False)


@command(
    "inspect",
    short_help="Show everything about one or more volumes",
    examples="""
tierce volume inspect data
tierce volume inspect --format '{{.Mountpoint}}' data
""",
)
@argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@option("-f", "--format", "form", default="", metavar="FORMAT", help="'json' or a Go TEMPLATE such as '{{.Name}}'")
def inspect(settings: Settings, names: Sequence[str], form: str) -> None:
    """Show everything about volumes, as a JSON array or through a template."""
    documents, problems = [], []
    volumes = _volumes(settings)
    for name in names:
        try:
            documents.append(_document(volumes.get(name)))
        except VolumeNotFound as error:
            problems.append(error)
    if documents or not form:
        echo(render_documents(documents, form), nl=False)
    _fail(problems)


@command("exists", short_help="Tell by the exit code whether a volume exists", examples="tierce volume exists data")
@argument("name", metavar="VOLUME")
def exists(settings: Settings, name: str) -> None:
    """End with 0 when there is such a volume, with 1 when there is not."""
    from tierce.cli.containers import exit_unless_found

    exit_unless_found(lambda: _volumes(settings).get(name))


@command(
    "rm",
    short_help="Remove one or more volumes",
    examples="""
tierce volume rm data
tierce volume rm -f data        # no error when it is not there
""",
)
@argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@option("-f", "--force", is_flag=True, help="No error for a volume that is not there")
def rm(settings: Settings, names: Sequence[str], force: bool) -> None:
    """Remove volumes with their files. A volume that a container uses stays."""
    volumes, users, problems = _volumes(settings), _users(settings), []
    for name in names:
        try:
            volumes.remove(name, users.get(name, ()))
        except TierceError as error:
            if not (force and isinstance(error, VolumeNotFound)):
                problems.append(error)
                continue
        echo(name)
    _fail(problems)


@command(
    "prune",
    short_help="Remove volumes that no container uses",
    examples="""
tierce volume prune -f
tierce volume prune -a --filter label!=keep
""",
)
@option("-a", "--all", "everything", is_flag=True, help="Also those with a name")
@option("-f", "--force", is_flag=True, help="Do not ask")
@filter_option("label=KEY[=VALUE], label!=KEY[=VALUE], all=true")
def prune(settings: Settings, everything: bool, force: bool, filters: Sequence[str]) -> None:
    """Remove the anonymous volumes that no container uses; with --all, those with a name too."""
    wanted = parse_filters(filters, ("all", "label", "label!"))
    everything = everything or "true" in wanted.get("all", ())
    if not force:
        kind = "all" if everything else "anonymous"
        echo(f"WARNING! This will remove {kind} local volumes not used by at least one container.")
        if not confirm("Are you sure you want to continue?"):
            raise Cancelled("volume prune has been cancelled")
    from runner.containers.records import Records
    from tierce.prune import prune_volumes

    with settings.store() as store:
        gone, size = prune_volumes(
            Records(store),
            _volumes(settings),
            lambda volume: (everything or volume.anonymous) and passes_labels(dict(volume.labels), wanted),
        )
    listed = ["Deleted Volumes:", *gone, ""] if gone else []
    echo("\n".join([*listed, f"Total reclaimed space: {human_size(size)}"]))


def _volumes(settings: Settings) -> Volumes:
    return Volumes(settings.root)


def _users(settings: Settings) -> dict[str, list[str]]:
    """The containers that name each volume, running or not."""
    from runner.containers.records import Records
    from tierce.containers import volume_users

    with settings.store() as store:
        return volume_users(Records(store))


def _passes(volume: Volume, wanted: dict[str, list[str]], volumes: Volumes, users: dict[str, list[str]]) -> bool:
    if "dangling" in wanted:
        word = wanted["dangling"][-1].lower()
        if word not in ("true", "1", "false", "0"):
            raise InvalidInput(f"filter dangling={word!r} is neither true nor false")
        if (volume.name in users or volumes.in_use(volume)) is (word in ("true", "1")):
            return False
    names, drivers = wanted.get("name"), wanted.get("driver")
    return (
        has_labels(dict(volume.labels), wanted.get("label", ()))
        and (not names or any(part in volume.name for part in names))
        and (not drivers or DRIVER in drivers)
    )


def _row(volume: Volume) -> dict[str, str]:
    return {
        "Availability": _NOT_MEASURED,
        "Driver": DRIVER,
        "Group": _NOT_MEASURED,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(volume.labels)),
        "Links": _NOT_MEASURED,
        "Mountpoint": volume.data,
        "Name": volume.name,
        "Scope": _SCOPE,
        "Size": _NOT_MEASURED,
        "Status": _NOT_MEASURED,
    }


def _document(volume: Volume) -> dict[str, object]:
    return {
        "CreatedAt": volume.created,
        "Driver": DRIVER,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volume.data,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": _SCOPE,
    }


def _fail(problems: Sequence[TierceError]) -> None:
    for problem in problems:
        echo(f"tierce: {problem}", err=True)
    if problems:
        raise Ended(1)
