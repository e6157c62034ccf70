"""``copy``: an image from anywhere to anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from tierce.cli.command import Settings, command, image_argument
from tierce.cli.registry_flags import Side, retry_options, retry_policy, side_options
from tierce.cli.transfer import PLATFORM, transfer_view

if TYPE_CHECKING:
    from tierce.cli.progress import TransferView
    from transfer.conversion import Conversion
    from transfer.copy import Copied, CopyOptions
    from transfer.registry.retry import Retry

_COMPRESSIONS: Final = ("gzip", "zstd")


@command(
    "copy",
    short_help="Copy an image from anywhere to anywhere",
    examples="""
tierce copy hello oci:/tmp/layout:hello                  # store to OCI layout
tierce copy docker://busybox:latest docker-archive:b.tar # registry to archive
tierce copy docker://a.example.com/app docker://b.example.com/app
tierce copy --platform linux/amd64 --platform linux/arm64 docker://busybox docker://b.example.com/busybox
tierce copy --format oci --dest-compress-format zstd docker://busybox docker://b.example.com/busybox:zstd
tierce copy oci-archive:app.tar app                      # archive to store
tierce copy --dest-tls-verify=false app docker://localhost:5000/app
""",
)
@image_argument("source")
@click.argument("destination")
@click.option("-a", "--all", "everything", is_flag=True, help="All platforms, also into the store")
@click.option(
    "--platform", "platforms", multiple=True, metavar=PLATFORM, help="Only this image of several platforms, or these"
)
@click.option("--preserve-digests", is_flag=True, help="Fail, before anything is sent, where a digest would change")
@click.option(
    "-f", "--format", "form", type=click.Choice(["oci", "v2s2"]), help="Manifests of this kind  [as they are]"
)
@click.option("--dest-compress-format", metavar="gzip|zstd", help="Compress layers so  [as they are]")
@click.option("--dest-compress-level", metavar="N", type=int, help="Level for layers that are compressed")
@click.option(
    "--dest-force-compress-format", is_flag=True, help="Accepted: a format that is asked for is always kept to"
)
@click.option("--additional-tag", "more_names", multiple=True, metavar="TAG", help="One more tag at the destination")
@click.option("--image-parallel-copies", metavar="N", type=click.IntRange(1), help="Blobs at once  [4]")
@click.option("--digestfile", metavar="FILE", help="Write the digest of the copy to a file")
@click.option("-q", "--quiet", is_flag=True, help="No progress")
@click.option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files")
@retry_options
@side_options("dest", "the destination")
@side_options("src", "the source")
@click.pass_obj
def copy(
    settings: Settings,
    /,
    source: str,
    destination: str,
    everything: bool,
    platforms: Sequence[str],
    preserve_digests: bool,
    form: str | None,
    dest_compress_format: str | None,
    dest_compress_level: int | None,
    dest_force_compress_format: bool,
    more_names: Sequence[str],
    image_parallel_copies: int | None,
    digestfile: str | None,
    quiet: bool,
    authfile: str | None,
    retry_times: int | None,
    retry_delay: str | None,
    **sides: Any,
) -> None:
    """Copy an image between places: all its platforms, under the digest that it has.

    SOURCE and DESTINATION are docker://NAME, oci:PATH[:REF], oci-archive:FILE[:REF],
    docker-archive:FILE[:NAME], dir:PATH or store:NAME; a bare NAME means the store, which
    takes this machine's platform unless --all. The digest changes only with several
    --platform, --format or --dest-compress-format, and then both digests are told.
    """
    if everything and platforms:
        raise click.UsageError("--all and --platform are mutually exclusive")
    if dest_force_compress_format and not dest_compress_format:
        raise click.UsageError("--dest-force-compress-format needs --dest-compress-format")
    there, here = (Side.take(prefix, sides, authfile) for prefix in ("src", "dest"))
    retry = retry_policy(retry_times, retry_delay)
    options = copy_options(
        platforms,
        conversion(form, dest_compress_format, dest_compress_level),
        retry,
        immutable="--preserve-digests" if preserve_digests else "",
        concurrency=image_parallel_copies,
    )
    with transfer_view(settings, quiet=quiet) as view:
        copied = _copy(
            settings, (source, there), (destination, here), options, view, everything=everything, more_names=more_names
        )
    digest = copied.descriptor.digest
    if digestfile:
        with open(digestfile, "w", encoding="ascii") as file:
            file.write(str(digest))
    if not quiet:
        if copied.changed:
            click.echo(f"Digest changed: it was {copied.chosen.digest}", err=True)
        click.echo(str(digest))


def conversion(form: str | None, compression: str | None, level: int | None) -> Conversion:
    """What the flags ask to change. Raises UsageError, InvalidInput."""
    from transfer.conversion import Conversion

    if compression == "zstd:chunked":
        raise click.UsageError("--dest-compress-format zstd:chunked is not supported: use zstd")
    if compression is not None and compression not in _COMPRESSIONS:
        raise click.UsageError(f"--dest-compress-format {compression}: want {' or '.join(_COMPRESSIONS)}")
    return Conversion.of(form, compression, level)  # type: ignore[arg-type]  # the choices are the literals


def copy_options(
    platforms: Sequence[str], changes: Conversion, retry: Retry, *, immutable: str = "", concurrency: int | None = None
) -> CopyOptions:
    """One platform is that image alone, several are an index of them, none is all there is."""
    from image.platform import Platform
    from tierce.images import host_platform
    from transfer.copy import CopyOptions

    here = host_platform()
    wanted = tuple(dict.fromkeys(Platform.parse(platform, here) for platform in platforms))
    return CopyOptions(
        here,
        wanted[0] if len(wanted) == 1 else None,
        wanted if len(wanted) > 1 else (),
        changes,
        immutable,
        concurrency or 4,
        retry,
    )


def _copy(
    settings: Settings,
    source: tuple[str, Side],
    destination: tuple[str, Side],
    options: CopyOptions,
    view: TransferView,
    *,
    everything: bool,
    more_names: Sequence[str],
) -> Copied:
    """Open both ends and copy. The store is opened only if one of them is in it."""
    from functools import cache

    from transfer.copy import copy as copy_image
    from transfer.transports.address import Places, open_sink, open_source

    with ExitStack() as stack:
        store = cache(lambda: stack.enter_context(settings.store()))
        unpack = os.geteuid() == 0 and not everything
        there, here = (
            Places(store, stack.enter_context(side.registries(settings, options.retry)), view, unpack)
            for side in (source[1], destination[1])
        )
        holds_indexes = everything or len(options.platforms) > 1
        taken = stack.enter_context(open_source(source[0], there))
        placed = stack.enter_context(
            open_sink(destination[0], here, all_platforms=holds_indexes, more_names=more_names)
        )
        return copy_image(taken, placed, options, view)
