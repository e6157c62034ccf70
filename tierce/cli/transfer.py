"""``pull`` and ``push``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from image.reference import Reference
from tierce.cli.command import Settings, content_trust_option
from tierce.cli.declare import PATH, Choice, argument, command, image_argument, option
from tierce.cli.output import echo

if TYPE_CHECKING:
    from store.store import Store
    from tierce.cli.progress import TransferView, Words
    from transfer.copy import CopyOptions
    from transfer.docker_engine import Engine
    from transfer.registries import Registries
    from transfer.registry.challenge import Credential
    from transfer.registry.retry import Retry

_F = TypeVar("_F", bound=Callable[..., Any])
PLATFORM: Final = "OS[/ARCH[/VARIANT]]"
_LOG_FORMAT: Final = "tierce.log_format"
_VIEW: Final = "tierce.view"


def registry_options(function: _F) -> _F:
    """How to reach a registry: the flags of pull and push."""
    for add in (
        option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files"),
        option("--creds", metavar="USER[:PASSWORD]", help="Credentials for this command alone"),
        option(
            "--cert-dir",
            metavar="DIR",
            type=PATH,
            help="Certificates of the registry: *.crt, X.cert with X.key",
        ),
        option("--tls-verify/--no-tls-verify", default=True, help="Demand https with a valid certificate  [on]"),
    ):
        function = add(function)
    return function


create_repository_option = option(
    "--create-repository",
    is_flag=True,
    help="Make a repository that is missing, at Amazon ECR (others do by themselves)",
)


@contextmanager
def open_registries(
    settings: Settings, *, tls_verify: bool = True, creds: str | None = None, authfile: str | None = None,
    credential: Credential | None = None, cert_dir: Path | None = None, retry: Retry | None = None,
    create_repository: bool = False, destination: bool = False,
) -> Iterator[Registries]:  # fmt: skip
    """Connections with the user's credentials, or with those given."""
    from tierce.registries import user_registries
    from transfer.credentials import parse_login
    from transfer.registries import RegistryOptions

    if creds:
        credential = parse_login(creds)
    options = RegistryOptions(
        not tls_verify, credential, cert_dir=cert_dir, retry=retry, create_repository=create_repository,
        uploads=settings.root / "uploads", known_blobs=settings.root / "known-blobs.db", paces=settings.root / "paces",
    )  # fmt: skip
    with user_registries(
        settings.environ, options, authfile, destination=destination, warn=_warner(settings)
    ) as registries:
        yield registries


def _warner(settings: Settings) -> Callable[[str], None]:
    """Shows what registries warn of, beside the progress where there is some. For any thread."""

    def warn(text: str) -> None:
        from tierce.cli.terminal import printable

        view: TransferView | None = settings.said.get(_VIEW)
        if view is None:
            echo(f"warning: {printable(text)}", err=True)
        else:
            view.warn(text)

    return warn


def docker_engine(
    settings: Settings, host: str | None = None, certificates: Path | None = None, *, tls_verify: bool = True
) -> Callable[[], Engine]:
    """Which docker daemon ``docker-daemon:`` means; found out when one is needed."""

    def found() -> Engine:
        from transfer.docker_engine import Engine

        return Engine.of(settings.environ, host, certificates, verify=tls_verify)

    return found


def copy_options(platform: str | None) -> CopyOptions:
    """What to take of an index: one platform if it is named, else all, or this machine's."""
    from image.platform import Platform
    from tierce.host_platform import host_platform
    from transfer.copy import CopyOptions

    here = host_platform()
    return CopyOptions(here, Platform.parse(platform, here) if platform else None)


def log_format_option(function: _F) -> _F:
    """``--log-format``, which ``transfer_view`` looks up."""

    def keep(settings: Settings, _name: str, form: str) -> None:
        settings.said[_LOG_FORMAT] = form

    return option(
        "--log-format",
        type=Choice(("auto", "plain", "tty", "json")),
        default="auto",
        expose_value=False,
        callback=keep,
        help="How progress is shown  [auto: bars on a terminal]",
    )(function)


def transfer_view(
    settings: Settings, *, quiet: bool, words: Words | None = None, blobs_have_lines: bool = True
) -> TransferView:
    """Progress on standard error, as ``--log-format`` says where a command has that."""
    import time

    from tierce.cli.progress import COPY, make_view

    form = "quiet" if quiet else settings.said.get(_LOG_FORMAT, "auto")
    view = make_view(
        form, sys.stderr, settings.environ, time.monotonic, words or COPY, blobs_have_lines=blobs_have_lines
    )
    settings.said[_VIEW] = view
    return view


@command(
    "pull",
    short_help="Download an image from a registry",
    examples="""
tierce pull busybox
tierce pull --platform linux/arm64 registry.example.com/team/app:1.0
tierce pull --tls-verify=false localhost:5000/app
""",
)
@argument("name", metavar="NAME[:TAG|@DIGEST]")
@content_trust_option
@option("--platform", metavar=PLATFORM, help="Which image of several platforms  [this machine's]")
@option("-q", "--quiet", is_flag=True, help="Only the name at the end")
@log_format_option
@registry_options
def pull(
    settings: Settings, name: str, platform: str | None, quiet: bool, tls_verify: bool, creds: str | None,
    authfile: str | None, cert_dir: Path | None,
) -> None:  # fmt: skip
    """Download an image and unpack it, so that it is ready to run."""
    reference = Reference.parse(name).with_default_tag()
    if not quiet and reference.familiar != name and not reference.digest and ":" not in name.rpartition("/")[2]:
        echo("Using default tag: latest")
    with (
        settings.store() as store,
        open_registries(
            settings, tls_verify=tls_verify, creds=creds, authfile=authfile, cert_dir=cert_dir
        ) as registries,
    ):
        pulled = pull_image(settings, reference, store, registries, platform=platform, quiet=quiet)
    echo(str(pulled))


def pull_image(
    settings: Settings,
    reference: Reference,
    store: Store,
    registries: Registries,
    *,
    platform: str | None = None,
    quiet: bool = False,
) -> Reference:
    """Pull with docker's words around the progress, which go to standard error.

    The result is the full name, which a short one may stand for by the user's registries.conf.
    """
    from tierce.cli.short_names import meant
    from transfer.mirrors import first_answer

    def pull_one(full: Reference) -> None:
        _pull_one(settings, full, store, registries, platform=platform, quiet=quiet)

    with meant(settings, registries.conf, reference) as names:
        return first_answer(names, pull_one, str)[0]


def _pull_one(
    settings: Settings, reference: Reference, store: Store, registries: Registries, *, platform: str | None, quiet: bool
) -> None:
    from tierce.cli.progress import PULL
    from transfer.pull import pull as pull_into_store

    with transfer_view(settings, quiet=quiet, words=PULL) as view:
        view.say(f"{reference.tag or reference.digest}: Pulling from {reference.familiar_repository}")
        pulled = pull_into_store(reference, store, registries, copy_options(platform), view)
        store.journal.write("image", "pull", reference.familiar, {"name": reference.familiar_repository})
        state = "Downloaded newer image for" if pulled.changed else "Image is up to date for"
        view.end([f"Digest: {pulled.source.digest}", f"Status: {state} {reference.familiar}"])


@command(
    "push",
    short_help="Upload an image to a registry",
    examples="""
tierce push registry.example.com/team/app:1.0
tierce push --tls-verify=false localhost:5000/app
""",
)
@image_argument("name", metavar="NAME[:TAG]")
@content_trust_option
@option("--platform", metavar=PLATFORM, help="Only this image of several platforms  [all]")
@option("-q", "--quiet", is_flag=True, help="Only the name at the end")
@create_repository_option
@log_format_option
@registry_options
def push(
    settings: Settings, name: str, platform: str | None, quiet: bool, tls_verify: bool, creds: str | None,
    authfile: str | None, cert_dir: Path | None, create_repository: bool,
) -> None:  # fmt: skip
    """Upload an image under its own name. What the registry has already is not sent."""
    from tierce.cli.progress import PUSH
    from transfer.push import push as push_from_store

    reference = Reference.parse(name).with_default_tag()
    with (
        settings.store() as store,
        open_registries(
            settings,
            tls_verify=tls_verify,
            creds=creds,
            authfile=authfile,
            cert_dir=cert_dir,
            create_repository=create_repository,
        ) as registries,
    ):
        if not quiet:
            echo(f"The push refers to repository [{reference.repository}]")
        with transfer_view(settings, quiet=quiet, words=PUSH) as view:
            pushed = push_from_store(name, reference, store, registries, copy_options(platform), view)
        store.journal.write("image", "push", reference.familiar, {"name": reference.familiar_repository})
    if quiet:
        echo(str(reference))
    else:
        target = pushed.descriptor
        echo(f"{reference.tag or 'digest'}: digest: {target.digest} size: {target.size}")
