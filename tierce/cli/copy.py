"""``copy``: an image from anywhere to anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierce.cli.command import Settings
from tierce.cli.declare import Choice, IntRange, WrongUsage, argument, command, image_argument, option
from tierce.cli.foreign_flags import accepted, encryption_flags, refused, signing_flags
from tierce.cli.output import echo
from tierce.cli.registry_flags import (
    Side,
    daemon_option,
    retry_options,
    retry_policy,
    shared_blobs_option,
    side_options,
)
from tierce.cli.transfer import PLATFORM, create_repository_option, log_format_option, transfer_view

if TYPE_CHECKING:
    from image.digest import Digest
    from tierce.cli.progress import TransferView
    from transfer.attached import Attachment
    from transfer.conversion import Conversion
    from transfer.copy import Copied, CopyOptions
    from transfer.registry.retry import Retry
    from transfer.transports.address import Places

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
@argument("destination")
@option("-a", "--all", "everything", is_flag=True, help="All platforms, also into the store")
@option(
    "--platform", "platforms", multiple=True, metavar=PLATFORM, help="Only this image of several platforms, or these"
)
@option("--preserve-digests", is_flag=True, help="Fail, before anything is sent, where a digest would change")
@option("-f", "--format", "form", type=Choice(("oci", "v2s2")), help="Manifests of this kind  [as they are]")
@option("--dest-compress-format", metavar="gzip|zstd", help="Compress layers so  [as they are]")
@option("--dest-compress-level", metavar="N", type=int, help="Level for layers that are compressed")
@option("--dest-force-compress-format", is_flag=True, help="Accepted: a format that is asked for is always kept to")
@option("--additional-tag", "more_names", multiple=True, metavar="TAG", help="One more tag at the destination")
@option("--image-parallel-copies", metavar="N", type=IntRange(1), help="Blobs at once  [4]")
@option(
    "--referrers/--no-referrers",
    default=None,
    help="Between registries, also what refers to the image, and its .sig, .att and .sbom tags  [on]",
)
@option("--remove-signatures", is_flag=True, help="Leave signatures behind")
@option("--verify", is_flag=True, help="Afterwards, read the copy again and look for every blob")
@option("--digestfile", metavar="FILE", help="Write the digest of the copy to a file")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
@option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files")
@option("--multi-arch", type=Choice(("system", "all", "index-only")), help="'system' is this machine's platform alone")
@option("--dest-compress", is_flag=True, help="The same as --dest-compress-format gzip")
@refused("--dest-decompress", instead="copy to docker-archive:, whose layers are not compressed", value=False)
@accepted("--dest-oci-accept-uncompressed-layers")
@accepted("--dest-precompute-digests")
@signing_flags
@encryption_flags
@create_repository_option
@retry_options
@shared_blobs_option("dest", "the destination")
@shared_blobs_option("src", "the source")
@daemon_option("dest", "the destination")
@daemon_option("src", "the source")
@side_options("dest", "the destination")
@side_options("src", "the source")
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
    referrers: bool | None,
    remove_signatures: bool,
    verify: bool,
    image_parallel_copies: int | None,
    digestfile: str | None,
    quiet: bool,
    authfile: str | None,
    retry_times: int | None,
    retry_delay: str | None,
    create_repository: bool,
    multi_arch: str | None,
    dest_compress: bool,
    **sides: Any,
) -> None:
    """Copy an image between places: all its platforms, under the digest that it has.

    SOURCE and DESTINATION are docker://NAME, oci:PATH[:REF], oci-archive:FILE[:REF],
    docker-archive:FILE[:NAME], docker-daemon:NAME, dir:PATH or store:NAME; a bare NAME means the store, which
    takes this machine's platform unless --all. The digest changes only with several
    --platform, --format or --dest-compress-format, and then both digests are told.
    """
    everything, platforms = _chosen_platforms(everything, platforms, multi_arch)
    if dest_compress:
        dest_compress_format = dest_compress_format or "gzip"
    if dest_force_compress_format and not dest_compress_format:
        raise WrongUsage("--dest-force-compress-format needs --dest-compress-format")
    job = CopyJob(
        source,
        destination,
        Side.take("src", sides, authfile),
        Side.take("dest", sides, authfile),
        copy_options(
            platforms,
            conversion(form, dest_compress_format, dest_compress_level),
            retry_policy(retry_times, retry_delay),
            immutable="--preserve-digests forbids that" if preserve_digests else "",
            concurrency=image_parallel_copies,
        ),
        everything=everything,
        more_names=more_names,
        referrers=referrers,
        signatures=not remove_signatures,
        verify=verify,
        create_repository=create_repository,
    )
    with transfer_view(settings, quiet=quiet) as view:
        copied, notes = job.run(settings, view)
        view.end(notes)
    digest = copied.descriptor.digest
    if digestfile:
        with open(digestfile, "w", encoding="ascii") as file:
            file.write(str(digest))
    if not quiet:
        echo(str(digest))


def _chosen_platforms(
    everything: bool, platforms: Sequence[str], multi_arch: str | None
) -> tuple[bool, Sequence[str]]:  # fmt: skip
    """``--all`` and ``--platform``, which ``--multi-arch`` says in other words. Raises UsageError."""
    if multi_arch == "index-only":
        raise WrongUsage("--multi-arch index-only is not supported: an index is never copied without its images")
    if (everything or multi_arch) and platforms:
        raise WrongUsage(f"{'--all' if everything else '--multi-arch'} and --platform are mutually exclusive")
    if multi_arch == "system" and not everything:
        from tierce.host_platform import host_platform

        return False, [str(host_platform())]
    return everything or multi_arch == "all", platforms


def conversion(form: str | None, compression: str | None, level: int | None) -> Conversion:
    """What the flags ask to change. Raises UsageError, InvalidInput."""
    from transfer.conversion import Conversion

    if compression == "zstd:chunked":
        raise WrongUsage("--dest-compress-format zstd:chunked is not supported: use zstd")
    if compression is not None and compression not in _COMPRESSIONS:
        raise WrongUsage(f"--dest-compress-format {compression}: want {' or '.join(_COMPRESSIONS)}")
    return Conversion.of(form, compression, level)  # type: ignore[arg-type]  # the choices are the literals


def copy_options(
    platforms: Sequence[str], changes: Conversion, retry: Retry, *, immutable: str = "", concurrency: int | None = None
) -> CopyOptions:
    """One platform is that image alone, several are an index of them, none is all there is."""
    from image.platform import Platform
    from tierce.host_platform import host_platform
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


class CopyJob(NamedTuple):
    """One copy, as its flags describe it."""

    source: str
    destination: str
    there: Side
    here: Side
    options: CopyOptions
    everything: bool = False
    more_names: Sequence[str] = ()
    referrers: bool | None = None
    signatures: bool = True
    verify: bool = False
    create_repository: bool = False

    def run(self, settings: Settings, view: TransferView) -> tuple[Copied, list[str]]:
        """Copy and verify; what there is to say of it, a line each. The store is opened only if it is needed."""
        from functools import cache

        from transfer.attached import Wish, copy_whole
        from transfer.transports.address import Places, open_sink, open_source

        self._check_ends()
        with ExitStack() as stack:
            store = cache(lambda: stack.enter_context(settings.store()))
            unpack = os.geteuid() == 0 and not self.everything
            there, here = (
                Places(store, stack.enter_context(opened), view, unpack, side.docker(settings), side.shared_blobs)
                for side, opened in (
                    (self.there, self.there.registries(settings, self.options.retry)),
                    (
                        self.here,
                        self.here.registries(
                            settings, self.options.retry, destination=True, create_repository=self.create_repository
                        ),
                    ),
                )
            )
            holds_indexes = self.everything or len(self.options.platforms) > 1
            source = stack.enter_context(open_source(self.source, there))
            with open_sink(self.destination, here, all_platforms=holds_indexes, more_names=self.more_names) as sink:
                wish = Wish(self.referrers is not False, self.signatures)
                copied, attached = copy_whole(source, sink, self.options, wish, view)
            notes = [f"Digest changed: it was {copied.chosen.digest}"] if copied.changed else []
            notes += [f"Copied what refers to it: {len(attached)}"] if attached else []
            if self.verify:
                expected = copied.descriptor.digest if sink.keeps_manifests else None
                notes.append(_verify(self.destination, here, expected, attached))
            return copied, notes

    def _check_ends(self) -> None:
        from transfer.transports.address import parse_transport

        (origin, _), (target, rest) = parse_transport(self.source), parse_transport(self.destination)
        if self.referrers and (origin, target) != ("docker", "docker"):
            raise WrongUsage("--referrers works between two registries, docker://")
        if self.verify and rest.startswith("-"):
            raise WrongUsage("--verify can't read standard output again")


def _verify(destination: str, here: Places, expected: Digest | None, attached: Sequence[Attachment]) -> str:
    """Read the copy again; the line that says what was found."""
    from tierce.cli.units import human_size
    from transfer.attached import verify_attached
    from transfer.transports.address import open_source, without_digest
    from transfer.transports.registry import RegistrySource
    from transfer.verify import verify

    with open_source(without_digest(destination), here) as place:
        found = verify(place, expected)
        if attached and isinstance(place, RegistrySource):
            found += verify_attached(place, attached)
        size = human_size(found.size)
        return f"Verified {place.name}: {found.manifests} manifests, {found.blobs} blobs of {size}"
