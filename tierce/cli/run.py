"""``run``, with docker's flags."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from image.errors import InvalidInput, TierceError
from tierce.cli.command import ExitCode, Settings, command, image_argument

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
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; NAME alone is taken from here"
)
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Set the variables of a file")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="HOST:PATH[:ro]", help="Mount a path of the host")
@click.option("--mount", "mounts", multiple=True, metavar="type=bind|tmpfs,...", help="Mount, in docker's long form")
@click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount an empty file system in memory")
@click.option("-w", "--workdir", default="", metavar="PATH", help="Working directory")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Name or number to run as")
@click.option("--group-add", multiple=True, metavar="GROUP", help="One more group")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal")
@click.option("--rm", "remove", is_flag=True, help="Remove it at its end; always so, as it runs in the foreground")
@click.option("--name", default="", metavar="NAME", help="Name it, so that no second one runs by this name")
@click.option("--entrypoint", metavar="PROGRAM", help="Run this instead of the image's entrypoint")
@click.option("--network", "--net", default="", metavar="MODE", help="none, host or bridge  [bridge]")
@click.option(
    "-p", "--publish", multiple=True, metavar="[IP:][PORT:]PORT[/udp]", help="Make a port reachable from here"
)
@click.option("-h", "--hostname", default="", metavar="NAME", help="Host name")
@click.option("--cap-add", multiple=True, metavar="CAP", help="Give a capability, or ALL")
@click.option("--cap-drop", multiple=True, metavar="CAP", help="Take a capability, or ALL")
@click.option("--privileged", is_flag=True, help="Give all capabilities and devices, lift all masks")
@click.option("--security-opt", multiple=True, metavar="OPTION", help="no-new-privileges")
@click.option("--read-only", is_flag=True, help="Make the root filesystem read-only")
@click.option("-m", "--memory", metavar="BYTES", help="Limit of memory, such as 512m")
@click.option("--cpus", type=float, metavar="N", help="Limit of processors, such as 1.5")
@click.option("--pids-limit", type=int, metavar="N", help="Limit of processes; -1 for none")
@click.option(
    "--pull",
    "policy",
    type=click.Choice(["missing", "always", "never"]),
    default="missing",
    help="When to pull the image",
)
@click.option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]")
@click.option("-q", "--quiet", is_flag=True, help="No progress of a pull")
@click.option(
    "--tls-verify/--no-tls-verify", default=True, help="For a pull: demand https with a valid certificate  [on]"
)
@click.option("-d", "--detach", is_flag=True, hidden=True)
@click.pass_obj
def run(
    settings: Settings,
    image: str,
    words: Sequence[str],
    env: Sequence[str],
    env_files: Sequence[str],
    volumes: Sequence[str],
    mounts: Sequence[str],
    tmpfs: Sequence[str],
    workdir: str,
    user: str,
    group_add: Sequence[str],
    interactive: bool,
    tty: bool,
    remove: bool,  # noqa: ARG001  (nothing is ever kept)
    name: str,
    entrypoint: str | None,
    network: str,
    publish: Sequence[str],
    hostname: str,
    cap_add: Sequence[str],
    cap_drop: Sequence[str],
    privileged: bool,
    security_opt: Sequence[str],
    read_only: bool,
    memory: str | None,
    cpus: float | None,
    pids_limit: int | None,
    policy: PullPolicy,
    platform: str | None,
    quiet: bool,
    tls_verify: bool,
    detach: bool,
) -> None:
    """Run a command in a new container of an image, and exit with its exit code.

    The image is pulled when it is not in the store. What follows IMAGE belongs to the
    container. 125: it could not be started; 126: the command can't be executed; 127: there
    is no such command.
    """
    from runner.containers.options import RunOptions
    from tierce.cli.units import parse_size
    from tierce.run import parse_mount, read_env_file, security_options

    try:
        if detach:
            raise InvalidInput("containers in the background (-d) are not supported yet")
        mounted = [parse_mount(text) for text in mounts]
        options = RunOptions(
            args=tuple(words),
            entrypoint=entrypoint,
            env=(*(line for path in env_files for line in read_env_file(path)), *env),
            volumes=(*volumes, *(text for kind, text in mounted if kind == "bind")),
            tmpfs=(*tmpfs, *(text for kind, text in mounted if kind == "tmpfs")),
            workdir=workdir,
            user=user,
            group_add=tuple(group_add),
            interactive=interactive,
            tty=tty,
            network=network,
            publish=tuple(publish),
            hostname=hostname,
            cap_add=tuple(cap_add),
            cap_drop=tuple(cap_drop),
            privileged=privileged,
            read_only=read_only,
            no_new_privileges=security_options(security_opt),
            memory=parse_size(memory) if memory else None,
            cpus=cpus,
            pids_limit=pids_limit,
        )
        pulling = _Pulling(settings, policy, platform, quiet=quiet, tls_verify=tls_verify)
        code = _run(settings, image, options, pulling, name=name)
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


def _run(settings: Settings, word: str, options: RunOptions, pulling: _Pulling, *, name: str) -> int:
    from tierce.run import choose_image
    from tierce.run import run as run_container

    with settings.store() as store:
        image = choose_image(
            store, word, pulling.platform, pulling.policy, lambda reference: pulling.pull(store, reference)
        )
        return run_container(store, image, options, _surroundings(settings), name=name)


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
