"""``tierce pin``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from image.errors import InvalidInput, NotFound, StorageError
from tierce.cli.command import Settings
from tierce.cli.declare import PATH, Ended, WrongUsage, argument, command, option
from tierce.cli.output import echo
from tierce.cli.terminal import printable
from tierce.cli.transfer import open_registries, registry_options

if TYPE_CHECKING:
    from image.digest import Digest
    from image.reference import Reference
    from tierce.pinning import Change, Mention, Resolve
    from transfer.registries import Registries
    from transfer.registry.client import Repository

_MAX_FILE: Final = 10 << 20
_AT_ONCE: Final = 4


class _File(NamedTuple):
    path: Path
    source: bytes
    mentions: tuple[Mention, ...]


@command(
    "pin",
    short_help="Write digests to the image names of Dockerfiles",
    examples="""
tierce pin Dockerfile                   # FROM busybox → FROM busybox@sha256:…
tierce pin --update docker/*.Dockerfile # to what the names stand for today
tierce pin --check Dockerfile           # fail if an image is not pinned
tierce pin --undo Dockerfile            # take the digests out again
""",
)
@argument("files", nargs=-1, metavar="[FILE...]", type=PATH)
@option("--undo", is_flag=True, help="Take the digests out")
@option("--update", is_flag=True, help="Look pinned images up again")
@option("--check", is_flag=True, help="Change nothing; fail if an image is not pinned")
@option("--dry-run", is_flag=True, help="Print the changes, make none")
@option("--ignore", multiple=True, metavar="NAME", help="Leave this name alone; may be repeated")
@registry_options
def pin(
    settings: Settings, files: Sequence[Path], undo: bool, update: bool, check: bool, dry_run: bool,
    ignore: tuple[str, ...], tls_verify: bool, creds: str | None, authfile: str | None,
    cert_dir: Path | None,
) -> None:  # fmt: skip
    """Write the digest of every image to FROM, COPY --from and RUN --mount, and nothing else to the FILEs.

    A pinned build starts from the same bytes for ever. Names that an ARG is part of are left
    alone. FILE is ./Dockerfile when it is left out.
    """
    from tierce import pinning

    if undo + update + check > 1:
        raise WrongUsage("--undo, --update and --check are mutually exclusive")
    read = [_read(path, ignore) for path in files or (Path("Dockerfile"),)]
    if check:
        raise Ended(_report_unpinned(read))
    for file in read:
        _tell_left_alone(file)
    if undo:
        planned = [(file, pinning.unpin(file.mentions)) for file in read]
    else:
        with open_registries(
            settings, tls_verify=tls_verify, creds=creds, authfile=authfile, cert_dir=cert_dir
        ) as registries:
            resolve = _resolver(registries, (mention for file in read for mention in file.mentions), update=update)
            planned = [(file, _pinned(file, resolve, update=update)) for file in read]
    for file, changes in planned:
        _carry_out(file, changes, dry_run=dry_run)


def _read(path: Path, ignored: Sequence[str]) -> _File:
    from tierce.pinning import find_images

    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path} is not a regular file: name a Dockerfile")
    try:
        with path.open("rb") as file:
            source = file.read(_MAX_FILE + 1)
    except FileNotFoundError as error:
        raise NotFound(f"failed to read dockerfile: {path}: no such file") from error
    except OSError as error:
        raise StorageError(f"failed to read dockerfile: {path}: {(error.strerror or '').lower()}") from error
    return _File(path, source, find_images(source, str(path), ignored=ignored))


def _report_unpinned(files: Iterable[_File]) -> int:
    """The exit code: 1 if any image is not pinned."""
    code = 0
    for file in files:
        for mention in file.mentions:
            if not mention.pinned:
                code = 1
                echo(f"{mention.span}: {printable(mention.written)} is not pinned")
    return code


def _tell_left_alone(file: _File) -> None:
    for mention in file.mentions:
        if mention.note:
            echo(f"{mention.span}: {printable(mention.written)} is left alone: {mention.note}", err=True)


def _resolver(registries: Registries, mentions: Iterable[Mention], *, update: bool) -> Resolve:
    """Looks names up, all at once; what went wrong is raised when the name is asked for."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = dict.fromkeys(name for m in mentions if (name := m.asks_for(update=update)) is not None)
    with ThreadPoolExecutor(_AT_ONCE, "resolve") as pool:
        futures = {reference: pool.submit(_digest, registries, reference) for reference in wanted}

    def resolve(reference: Reference) -> Digest:
        return futures[reference].result()

    return resolve


def _digest(registries: Registries, reference: Reference) -> Digest:
    from tierce.pinning import not_found
    from transfer.mirrors import first_answer

    def ask(repository: Repository) -> Digest:
        found = repository.head_manifest(reference.tag or "")
        if found is None:
            raise not_found(reference)
        return found.digest

    def look_up(meant: Reference) -> Digest:
        return registries.pull_places(meant).ask(ask)[1]

    return first_answer(registries.conf.meanings(reference), look_up, str)[1]


def _pinned(file: _File, resolve: Callable[[Reference], Digest], *, update: bool) -> tuple[Change, ...]:
    from builder.dockerfile.parse import source_lines
    from image.errors import DockerfileError
    from tierce import pinning

    try:
        return pinning.pin(file.mentions, resolve, update=update)
    except DockerfileError as error:
        error.source = source_lines(file.source)
        raise


def _carry_out(file: _File, changes: tuple[Change, ...], *, dry_run: bool) -> None:
    from tierce import pinning

    for change in changes:
        echo(f"{change.mention.span}: {printable(change.mention.written)} -> {change.text}")
    if changes and not dry_run:
        pinning.replace_file(file.path, pinning.rewrite(file.source, changes))
