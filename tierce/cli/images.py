"""``images``, ``rmi``, ``tag``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from image.errors import InvalidInput, NotFound, TierceError
from image.reference import Reference
from store.metadata import ImageRecord
from store.store import Store
from tierce import images as lookup
from tierce.cli.command import Settings, format_option
from tierce.cli.declare import Ended, argument, command, image_argument, option
from tierce.cli.filters import filter_option, has_labels, parse_filters
from tierce.cli.output import echo
from tierce.cli.tables import render
from tierce.cli.transfer import registry_options
from tierce.cli.units import ago, go_time, human_size, parse_time, parse_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

HEADERS: Final = {
    "Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST",
    "ID": "IMAGE ID", "Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE", "Platform": "PLATFORM",
}  # fmt: skip
_FILTERS: Final = ("before", "dangling", "label", "reference", "since", "until")
_NONE: Final = "<none>"


@command("exists", short_help="Tell by the exit code whether an image exists", examples="tierce image exists busybox")
@image_argument("image", metavar="IMAGE")
def exists(settings: Settings, image: str) -> None:
    """End with 0 when the store has such an image, with 1 when it has not."""
    from tierce.cli.containers import exit_unless_found

    with settings.store() as store:
        exit_unless_found(lambda: lookup.find(store.metadata, image))


@command(
    "images",
    short_help="List images",
    examples="""
tierce images
tierce images busybox
tierce images --filter dangling=true -q
tierce images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
tierce images --format 'table {{.ID}}\\t{{.Repository}}\\t{{.CreatedSince}}'
""",
)
@argument("repository", required=False, metavar="[REPOSITORY[:TAG]]", default="")
@option("-a", "--all", "everything", is_flag=True, help="For docker's sake: nothing is ever hidden")
@option("-q", "--quiet", is_flag=True, help="Only ids")
@option("--digests", is_flag=True, help="Show digests")
@option("--no-trunc", is_flag=True, help="Whole ids")
@filter_option("before=IMAGE, dangling=true|false, label=KEY[=VALUE], reference=PATTERN, since=IMAGE, until=TIME", "-f")
@format_option
def images(
    settings: Settings,
    repository: str,
    everything: bool,  # noqa: ARG001  (docker hides intermediate images; there are none here)
    quiet: bool,
    digests: bool,
    no_trunc: bool,
    filters: Sequence[str],
    form: str,
) -> None:
    """List the images of the store, newest first.

    SIZE is that of an image's files, or of its compressed blobs while it is not unpacked.
    Images share both.
    """
    wanted = parse_filters(filters, _FILTERS)
    if repository:
        wanted["reference"] = [*wanted.get("reference", []), repository]
    with settings.store() as store:
        records = select(store, wanted, settings.clock())
        if quiet and not form:
            ids = dict.fromkeys(record.config if no_trunc else lookup.short_id(record.config) for record in records)
            echo("".join(f"{image}\n" for image in ids), nl=False)
            return
        pattern = _matcher(wanted.get("reference", []))
        known = lookup.repository_digests(store.metadata)
        rows = image_rows(records, known, pattern, settings.clock(), whole=no_trunc)
    columns = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
    echo(render(rows, HEADERS, columns, form), nl=False)


def select(store: Store, filters: Mapping[str, Sequence[str]], now_s: float) -> list[ImageRecord]:
    """The images that pass every filter. Raises InvalidInput, ReferenceNotFound."""
    records = lookup.list_images(store.metadata)
    tests: list[Callable[[ImageRecord], bool]] = []
    if "dangling" in filters:
        wanted = _boolean("dangling", filters["dangling"][-1])
        tests.append(lambda record: wanted is not bool(record.names))
    if "reference" in filters:
        matches = _matcher(filters["reference"])
        tests.append(lambda record: any(map(matches, record.names)))
    for word in filters.get("before", ()):
        limit = lookup.find(store.metadata, word).record.created
        tests.append(lambda record, limit=limit: record.created < limit)  # type: ignore[misc]
    for word in filters.get("since", ()):
        limit = lookup.find(store.metadata, word).record.created
        tests.append(lambda record, limit=limit: record.created > limit)  # type: ignore[misc]
    for word in filters.get("until", ()):
        moment = parse_until(word, now_s)
        tests.append(lambda record, moment=moment: _born_s(record) < moment)  # type: ignore[misc]
    words = filters.get("label", ())
    if words:
        tests.append(lambda record: has_labels(lookup.labels(store.content, record), words))
    return [record for record in records if all(test(record) for test in tests)]


def _born_s(record: ImageRecord) -> float:
    moment = parse_time(record.created)
    return moment.timestamp() if moment else record.added_s


def _boolean(name: str, text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise InvalidInput(f"filter {name}={text!r} is neither true nor false")
    return values[text.lower()]


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a full name matches one of the patterns, as users spell it, with or without its tag."""
    compiled = [re.compile(_glob(pattern)) for pattern in patterns]

    def matches(name: str) -> bool:
        reference = Reference.parse(name)
        familiar = (reference.familiar, reference.familiar_repository)
        whole = {str(reference), reference.repository}
        return (
            not patterns
            or any(one.fullmatch(spelling) for one in compiled for spelling in familiar)
            or not whole.isdisjoint(patterns)
        )

    return matches


def _glob(pattern: str) -> str:
    """Go's path.Match as a regular expression: ``*`` stops at a slash."""
    pieces = re.findall(r"\*|\?|\[\^?[^\]]+\]|\\.|.", pattern, re.DOTALL)
    special = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        special.get(piece) or (piece.replace("\\", "\\\\") if len(piece) > 2 and piece[0] == "[" else re.escape(piece))
        for piece in pieces
    )


def image_rows(
    records: Iterable[ImageRecord],
    registry_digests: Mapping[str, str],
    shows: Callable[[str], bool],
    now_s: float,
    *,
    whole: bool = False,
) -> list[dict[str, str]]:
    """A row for each name of each image, or one for an image without."""
    rows = []
    for record in records:
        common = _common_fields(record, now_s, whole=whole)
        names = [name for name in record.names if shows(name)]
        for name in names:
            reference = Reference.parse(name)
            digest = registry_digests.get(name, str(record.target.digest))
            place = {"Repository": reference.familiar_repository, "Tag": reference.tag or _NONE, "Digest": digest}
            rows.append(common | place)
        if not names:
            rows.append(common | {"Repository": _NONE, "Tag": _NONE, "Digest": str(record.target.digest)})
    return rows


def _common_fields(record: ImageRecord, now_s: float, *, whole: bool) -> dict[str, str]:
    size = human_size(record.size)
    return {
        "ID": record.config if whole else lookup.short_id(record.config),
        "CreatedAt": go_time(parse_time(record.created)), "CreatedSince": ago(record.created, now_s),
        "Size": size, "VirtualSize": size, "Platform": record.platform,
        "Containers": "N/A", "SharedSize": "N/A", "UniqueSize": "N/A",
    }  # fmt: skip


@command(
    "rmi",
    short_help="Remove one or more images",
    examples="""
tierce rmi hello
tierce rmi 3f57d9401f8d busybox:1.36
tierce rmi -f $(tierce images -q --filter dangling=true)
""",
)
@image_argument("words", nargs=-1, required=True, metavar="IMAGE [IMAGE...]")
@option("-f", "--force", is_flag=True, help="Also an id with names in several repositories; what is absent is no error")
@option("--no-prune", is_flag=True, help="Leave the blobs and layers for system prune")
def rmi(settings: Settings, words: Sequence[str], force: bool, no_prune: bool) -> None:
    """Remove names, and the images that are left without one."""
    failed = False
    with settings.store() as store:
        for word in words:
            try:
                removed = lookup.remove(store, word, force=force)
            except TierceError as error:
                failed = failed or not (force and isinstance(error, NotFound))
                echo(f"tierce: {error}", err=True)
            else:
                lines = [f"Untagged: {name}" for name in removed.untagged]
                echo("\n".join([*lines, *(f"Deleted: {image}" for image in removed.deleted)]))
        if not no_prune:
            store.collect()
    if failed:
        raise Ended(1)


@command(
    "tag",
    short_help="Give an image one more name",
    examples="""
tierce tag hello registry.example.com/team/hello:1.0
tierce tag 3f57d9401f8d hello:old
tierce tag docker://registry.example.com/team/hello:1.0 stable   # in the registry, without a transfer
""",
)
@image_argument("source", metavar="SOURCE_IMAGE[:TAG]")
@argument("target", metavar="TARGET_IMAGE[:TAG]")
@registry_options
def tag(settings: Settings, /, source: str, target: str, **flags: Any) -> None:
    """Let TARGET_IMAGE be a name of SOURCE_IMAGE, whatever it named before.

    With docker:// the names are tags of a repository in a registry.
    """
    if source.startswith("docker://"):
        from tierce.cli.repositories import tag_remote

        return tag_remote(settings, source, target, flags)
    with settings.store() as store:
        lookup.add_name(store, source, target)
    return None
