"""``pull``, ``push``, ``copy``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from image.reference import Reference
from tierce.cli.command import Settings, command, image_argument
from tierce.cli.progress import TransferView

if TYPE_CHECKING:
    from store.store import Store
    from transfer.copy import Copied, CopyOptions
    from transfer.registries import Registries
    from transfer.registry.challenge import Credential

_F = TypeVar("_F", bound=Callable[..., Any])
_PLATFORM: Final = "OS[/ARCH[/VARIANT]]"


def registry_options(function: _F) -> _F:
    """How to reach a registry: the flags of pull and push."""
    for option in (
        click.option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files"),
        click.option("--creds", metavar="USER[:PASSWORD]", help="Credentials for this command alone"),
        click.option("--tls-verify/--no-tls-verify", default=True, help="Demand https with a valid certificate  [on]"),
    ):
        function = option(function)
    return function


@contextmanager
def open_registries(
    settings: Settings, *, tls_verify: bool = True, creds: str | None = None, authfile: str | None = None,
    anonymous: bool = False,
) -> Iterator[Registries]:  # fmt: skip
    """Connections with the user's credentials, or with those given."""
    from transfer.credentials import Credentials, credential_files, parse_login
    from transfer.registries import Registries, RegistryOptions
    from transfer.registry.challenge import ANONYMOUS

    credential: Credential | None = ANONYMOUS if anonymous else parse_login(creds) if creds else None
    credentials = Credentials(credential_files(settings.environ, authfile), settings.environ)
    with Registries(settings.environ, credentials, RegistryOptions(not tls_verify, credential)) as registries:
        yield registries


def copy_options(platform: str | None) -> CopyOptions:
    """What to take of an index: one platform if it is named, else all, or this machine's."""
    from image.platform import Platform
    from tierce.images import host_platform
    from transfer.copy import CopyOptions

    here = host_platform()
    return CopyOptions(here, Platform.parse(platform, here) if platform else None)


def transfer_view(settings: Settings, *, quiet: bool) -> TransferView:
    """Progress on standard error."""
    import time

    return TransferView(sys.stderr, settings.environ, time.monotonic, quiet=quiet)


@command(
    "pull",
    short_help="Download an image from a registry",
    examples="""
tierce pull busybox
tierce pull --platform linux/arm64 registry.example.com/team/app:1.0
tierce pull --tls-verify=false localhost:5000/app
""",
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("--platform", metavar=_PLATFORM, help="Which image of several platforms  [this machine's]")
@click.option("-q", "--quiet", is_flag=True, help="Only the name at the end")
@registry_options
@click.pass_obj
def pull(
    settings: Settings, name: str, platform: str | None, quiet: bool, tls_verify: bool, creds: str | None,
    authfile: str | None,
) -> None:  # fmt: skip
    """Download an image and unpack it, so that it is ready to run."""
    reference = Reference.parse(name).with_default_tag()
    if not quiet and reference.familiar != name and not reference.digest and ":" not in name.rpartition("/")[2]:
        click.echo("Using default tag: latest")
    with (
        settings.store() as store,
        open_registries(settings, tls_verify=tls_verify, creds=creds, authfile=authfile) as registries,
    ):
        pull_image(settings, reference, store, registries, platform=platform, quiet=quiet)
    click.echo(str(reference))


def pull_image(
    settings: Settings,
    reference: Reference,
    store: Store,
    registries: Registries,
    *,
    platform: str | None = None,
    quiet: bool = False,
) -> None:
    """Pull with docker's words around the progress, which go to standard error."""
    from transfer.pull import pull as pull_into_store

    if not quiet:
        click.echo(f"{reference.tag or reference.digest}: Pulling from {reference.familiar_repository}", err=True)
    with transfer_view(settings, quiet=quiet) as view:
        pulled = pull_into_store(reference, store, registries, copy_options(platform), view)
    if not quiet:
        state = "Downloaded newer image for" if pulled.changed else "Image is up to date for"
        click.echo(f"Digest: {pulled.source.digest}\nStatus: {state} {reference.familiar}", err=True)


@command(
    "push",
    short_help="Upload an image to a registry",
    examples="""
tierce push registry.example.com/team/app:1.0
tierce push --tls-verify=false localhost:5000/app
""",
)
@image_argument("name", metavar="NAME[:TAG]")
@click.option("--platform", metavar=_PLATFORM, help="Only this image of several platforms  [all]")
@click.option("-q", "--quiet", is_flag=True, help="Only the name at the end")
@registry_options
@click.pass_obj
def push(
    settings: Settings, name: str, platform: str | None, quiet: bool, tls_verify: bool, creds: str | None,
    authfile: str | None,
) -> None:  # fmt: skip
    """Upload an image under its own name. What the registry has already is not sent."""
    from transfer.push import push as push_from_store

    reference = Reference.parse(name).with_default_tag()
    with (
        settings.store() as store,
        open_registries(settings, tls_verify=tls_verify, creds=creds, authfile=authfile) as registries,
    ):
        if not quiet:
            click.echo(f"The push refers to repository [{reference.repository}]")
        with transfer_view(settings, quiet=quiet) as view:
            pushed = push_from_store(name, reference, store, registries, copy_options(platform), view)
    if quiet:
        click.echo(str(reference))
    else:
        target = pushed.descriptor
        click.echo(f"{reference.tag or 'digest'}: digest: {target.digest} size: {target.size}")


@command(
    "copy",
    short_help="Copy an image from anywhere to anywhere",
    examples="""
tierce copy hello oci:/tmp/layout:hello                  # store to OCI layout
tierce copy docker://busybox:latest docker-archive:b.tar # registry to archive
tierce copy docker://a.example.com/app docker://b.example.com/app
tierce copy oci-archive:app.tar app                      # archive to store
tierce copy --dest-tls-verify=false app docker://localhost:5000/app
""",
)
@image_argument("source")
@click.argument("destination")
@click.option("-a", "--all", "everything", is_flag=True, help="All platforms, also into the store")
@click.option("--platform", metavar=_PLATFORM, help="Only this image of several platforms")
@click.option("-q", "--quiet", is_flag=True, help="No progress")
@click.option("--src-creds", metavar="USER[:PASSWORD]", help="Credentials at the source")
@click.option("--dest-creds", metavar="USER[:PASSWORD]", help="Credentials at the destination")
@click.option("--src-no-creds", is_flag=True, help="No credentials at the source")
@click.option("--dest-no-creds", is_flag=True, help="No credentials at the destination")
@click.option("--src-tls-verify/--src-no-tls-verify", default=True, help="Demand valid https at the source  [on]")
@click.option(
    "--dest-tls-verify/--dest-no-tls-verify", default=True, help="Demand valid https at the destination  [on]"
)
@click.option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files")
@click.option("--src-authfile", metavar="FILE", help="The same, for the source")
@click.option("--dest-authfile", metavar="FILE", help="The same, for the destination")
@click.option("--digestfile", metavar="FILE", help="Write the digest of the copy to a file")
@click.pass_obj
def copy(
    settings: Settings,
    source: str,
    destination: str,
    everything: bool,
    platform: str | None,
    quiet: bool,
    src_creds: str | None,
    dest_creds: str | None,
    src_no_creds: bool,
    dest_no_creds: bool,
    src_tls_verify: bool,
    dest_tls_verify: bool,
    authfile: str | None,
    src_authfile: str | None,
    dest_authfile: str | None,
    digestfile: str | None,
) -> None:
    """Copy an image between places. Its digest stays the same.

    SOURCE and DESTINATION are docker://NAME, oci:PATH[:REF], oci-archive:FILE[:REF],
    docker-archive:FILE[:NAME], dir:PATH or store:NAME; a bare NAME means the store.
    """
    if everything and platform:
        raise click.UsageError("--all and --platform are mutually exclusive")
    there = _Side(src_creds, src_authfile or authfile, src_tls_verify, src_no_creds)
    here = _Side(dest_creds, dest_authfile or authfile, dest_tls_verify, dest_no_creds)
    with transfer_view(settings, quiet=quiet) as view:
        copied = _copy(settings, (source, there), (destination, here), platform, view, everything=everything)
    if digestfile:
        with open(digestfile, "w", encoding="ascii") as file:
            file.write(str(copied.descriptor.digest))
    if not quiet:
        click.echo(str(copied.descriptor.digest))


class _Side(NamedTuple):
    """How one end of a copy reaches registries."""

    creds: str | None
    authfile: str | None
    tls_verify: bool
    anonymous: bool

    def registries(self, settings: Settings) -> AbstractContextManager[Registries]:
        return open_registries(settings, **self._asdict())


def _copy(
    settings: Settings,
    source: tuple[str, _Side],
    destination: tuple[str, _Side],
    platform: str | None,
    view: TransferView,
    *,
    everything: bool,
) -> Copied:
    """Open both ends and copy. The store is opened only if one of them is in it."""
    from functools import cache

    from transfer.copy import copy as copy_image
    from transfer.transports.address import Places, open_sink, open_source

    with ExitStack() as stack:
        store = cache(lambda: stack.enter_context(settings.store()))
        unpack = os.geteuid() == 0 and not everything
        there, here = (
            Places(store, stack.enter_context(side.registries(settings)), view, unpack)
            for side in (source[1], destination[1])
        )
        taken = stack.enter_context(open_source(source[0], there))
        placed = stack.enter_context(open_sink(destination[0], here, all_platforms=everything))
        return copy_image(taken, placed, copy_options(platform), view)
