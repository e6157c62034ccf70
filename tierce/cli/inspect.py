"""``inspect`` and ``history``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from image.errors import ContainerNotFound, TierceError
from image.platform import Platform
from tierce.cli.chosen import latest_of, latest_option
from tierce.cli.command import Settings, format_option
from tierce.cli.declare import PATH, Choice, Ended, WrongUsage, command, image_argument, option
from tierce.cli.output import echo
from tierce.cli.registry_flags import login_options, one_side
from tierce.cli.tables import render, render_documents
from tierce.cli.units import ago, human_size, parse_time
from tierce.describe import Step, inspect_document
from tierce.describe import history as history_of
from tierce.host_platform import host_platform
from tierce.images import find, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from store.container_rows import ContainerRows
    from store.store import Store

HEADERS: Final = {
    "ID": "IMAGE", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY",
    "Size": "SIZE", "Comment": "COMMENT",
}  # fmt: skip
_CREATED_BY_WIDTH: Final = 45

platform_option = option(
    "--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]"
)


@command(
    "inspect",
    short_help="Show everything about one or more images",
    examples="""
tierce inspect hello
tierce inspect --format '{{.Os}}/{{.Architecture}} {{json .Config.Env}}' hello
tierce inspect -f '{{range .RootFS.Layers}}{{println .}}{{end}}' hello
tierce inspect docker://busybox            # in a registry, without pulling
tierce inspect --raw docker://busybox      # its manifest or index, byte for byte
tierce inspect --config oci:/tmp/layout:app
""",
)
@image_argument("words", nargs=-1, metavar="IMAGE [IMAGE...]")
@latest_option
@option("-f", "--format", "form", default="", metavar="FORMAT", help="'json' or a Go TEMPLATE such as '{{.Id}}'")
@option("--type", "kind", type=Choice(("container", "image")), help="Only objects of this type")
@option("-s", "--size", "sized", is_flag=True, help="How large a container's own files are, and with its image")
@option("--raw", is_flag=True, help="The exact bytes of the manifest; with --config, of the configuration")
@option("--config", is_flag=True, help="The image's configuration")
@option("--daemon-host", metavar="HOST", help="Of docker-daemon:  [DOCKER_HOST]")
@option("-n", "--no-tags", is_flag=True, help="Do not ask a registry for the other tags")
@option("--shared-blob-dir", metavar="DIR", type=PATH, help="Blobs of oci:  [the layout's own]")
@platform_option
@login_options
def inspect(
    settings: Settings, /, words: Sequence[str], latest: bool, form: str, kind: str | None, sized: bool, platform: str | None, raw: bool,
    config: bool, no_tags: bool, daemon_host: str | None, shared_blob_dir: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Show everything about containers and images, as a JSON array or through a template.

    A container's name wins over an image's. An image with a transport, such as docker://NAME,
    is looked at where it is, and shown as skopeo shows it.
    """
    from tierce.cli.remote_inspect import inspect_elsewhere, is_elsewhere

    if not words and not latest:
        raise WrongUsage("missing argument 'IMAGE [IMAGE...]'")
    wanted = Platform.parse(platform, host_platform()) if platform else None
    if raw or config or any(map(is_elsewhere, words)):
        if len(words) > 1:
            raise WrongUsage("one image at a time with a transport, --raw or --config")
        return inspect_elsewhere(
            settings, words[0], wanted, one_side(flags), raw=raw, config=config, tags=not no_tags, form=form,
            daemon_host=daemon_host, shared_blobs=shared_blob_dir,
        )  # fmt: skip
    documents, problems = [], []
    with settings.store() as store:
        if latest:
            from runner.containers.records import Records

            words, kind = [*words, latest_of(Records(store))], "container"
        for word in words:
            try:
                documents.append(_document(settings, store, word, kind, wanted, sized=sized))
            except TierceError as error:
                problems.append(str(error))
    if documents or not form:
        echo(render_documents(documents, form), nl=False)
    for problem in problems:
        echo(f"tierce: {problem}", err=True)
    if problems:
        raise Ended(1)
    return None


def _document(
    settings: Settings, store: Store, word: str, kind: str | None, wanted: Platform | None, *, sized: bool
) -> object:
    from store.container_rows import ContainerRows

    if kind == "container" or (kind is None and _is_container(ContainerRows(store.metadata), word)):
        from runner.containers.records import Records
        from runner.runtime.state import runtime_directory
        from tierce.describe_container import inspect_container

        records = Records(store)
        root = runtime_directory(settings.environ, os.geteuid())
        return inspect_container(records, records.get(word), root, sized=sized)
    return inspect_document(store, find(store.metadata, word), wanted)


def _is_container(rows: ContainerRows, word: str) -> bool:
    try:
        rows.get(word)
    except ContainerNotFound:
        return False
    return True


@command(
    "history",
    short_help="Show the steps an image was made of",
    examples="""
tierce history hello
tierce history --no-trunc --format '{{.CreatedBy}}' hello
""",
)
@image_argument("image", metavar="IMAGE")
@option("--no-trunc", is_flag=True, help="Whole commands and ids")
@option("-q", "--quiet", is_flag=True, help="Only ids")
@option("-H", "--human/--no-human", default=True, help="Sizes and times for people  [on]")
@platform_option
@format_option
def history(
    settings: Settings, image: str, no_trunc: bool, quiet: bool, human: bool, platform: str | None, form: str
) -> None:
    """Show the steps an image was made of, newest first.

    SIZE is that of the unpacked layer; of the compressed blob, where it is not unpacked.
    """
    wanted = Platform.parse(platform, host_platform()) if platform else None
    with settings.store() as store:
        steps = history_of(store, find(store.metadata, image), wanted)
    rows = history_rows(steps, settings.clock(), whole=no_trunc, human=human)
    if quiet and not form:
        echo("".join(f"{row['ID']}\n" for row in rows), nl=False)
        return
    echo(render(rows, HEADERS, ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"], form), nl=False)


def history_rows(steps: Iterable[Step], now_s: float, *, whole: bool, human: bool) -> list[dict[str, str]]:
    """A row a step. ``whole`` cuts nothing; ``human`` rounds sizes and times."""
    rows = []
    for step in steps:
        moment = parse_time(step.created)
        created_by = step.created_by.replace("\t", " ").replace("\n", " ")
        rows.append({
            "ID": step.id if whole or not step.id.startswith("sha256:") else short_id(step.id),
            "CreatedAt": moment.isoformat() if moment else "N/A",
            "CreatedSince": ago(step.created, now_s) if human else step.created or "N/A",
            "CreatedBy": created_by if whole else _ellipsis(created_by, _CREATED_BY_WIDTH),
            "Size": human_size(step.size) if human else str(step.size),
            "Comment": step.comment,
        })  # fmt: skip
    return rows


def _ellipsis(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\u2026"
