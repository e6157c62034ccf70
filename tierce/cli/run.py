"""``run``, with docker's flags."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from image.errors import InvalidInput, TierceError
from tierce.cli.command import ExitCode, Settings, command, image_argument
from tierce.cli.run_flags import container_flags, read_options

if TYPE_CHECKING:
    from image.platform import Platform
    from image.reference import Reference
    from runner.containers.options import RunOptions
    from runner.runtime.operations import Operation
    from store.store import Store
    from tierce.run import PullPolicy, Surroundings

_CLI_FAILED = 125


@command(
    "run",
    short_help="Run a command in a new container",
    context_settings={"allow_interspersed_args": False},
    examples="""
tierce run --rm busybox echo hello
tierce run -it --rm -v "$PWD:/src" -w /src busybox sh
tierce run --rm -p 127.0.0.1:8080:80 -e DEBUG=1 web
tierce run --rm --network none --read-only --tmpfs /tmp app
""",
)
@image_argument("image", metavar="IMAGE")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG...]")
@container_flags
@click.option("-d", "--detach", is_flag=True, hidden=True)
@click.pass_obj
def run(
    settings: Settings,
    /,
    image: str,
    words: Sequence[str],
    detach: bool,
    **flags: Any,
) -> None:
    """Run a command in a new container of an image, and exit with its exit code.

    The image is pulled when it is not in the store. What follows IMAGE belongs to the
    container. 125: it could not be started; 126: the command can't be executed; 127: there
    is no such command.
    """
    try:
        if detach:
            raise InvalidInput("containers in the background (-d) are not supported yet")
        pulling = _Pulling(
            settings, flags["policy"], flags["platform"], quiet=flags["quiet"], tls_verify=flags["tls_verify"]
        )
        code = _run(
            settings, image, read_options(words, flags), pulling, name=flags["name"], isolation=flags["isolation"]
        )
    except TierceError as error:
        from runner.containers.foreground import exit_status

        raise ExitCode(exit_status(error), error) from error
    except OSError as error:
        raise ExitCode(_CLI_FAILED, error) from error
    raise click.exceptions.Exit(code)


class _Pulling:
    """When and how to pull the image."""

    def __init__(
        self, settings: Settings, policy: PullPolicy, platform: str | None, *, quiet: bool, tls_verify: bool
    ) -> None:
        self.policy: PullPolicy = policy
        self._settings = settings
        self._platform = platform
        self._quiet = quiet
        self._tls_verify = tls_verify

    @property
    def platform(self) -> Platform | None:
        """Raises InvalidPlatform."""
        if self._platform is None:
            return None
        from image.platform import Platform
        from tierce.images import host_platform

        return Platform.parse(self._platform, host_platform())

    def pull(self, store: Store, reference: Reference) -> None:
        from tierce.cli.transfer import open_registries, pull_image

        if self.policy == "missing":
            click.echo(f"Unable to find image '{reference.familiar}' locally", err=True)
        with open_registries(self._settings, tls_verify=self._tls_verify) as registries:
            pull_image(self._settings, reference, store, registries, platform=self._platform, quiet=self._quiet)


def _run(settings: Settings, word: str, options: RunOptions, pulling: _Pulling, *, name: str, isolation: str) -> int:
    from tierce.run import choose_image
    from tierce.run import run as run_container

    with settings.store() as store:
        image = choose_image(
            store, word, pulling.platform, pulling.policy, lambda reference: pulling.pull(store, reference)
        )
        return run_container(store, image, options, _surroundings(settings), name=name, isolation=isolation)


def _surroundings(settings: Settings) -> Surroundings:
    from tierce.run import Surroundings

    def trace(operation: Operation) -> None:
        click.echo(str(operation), err=True)

    return Surroundings(
        settings.environ,
        os.getcwd(),
        lambda line: click.echo(f"WARNING: {line}", err=True),
        trace if settings.debug else None,
    )
