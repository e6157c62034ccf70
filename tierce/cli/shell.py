"""``tierce builder shell``: a shell in the root filesystem of a build step that failed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tierce.cli.command import ExitCode, Settings
from tierce.cli.declare import Ended, argument, command
from tierce.cli.output import echo

if TYPE_CHECKING:
    from store.failed_steps import FailedStep
    from store.store import Store


@command(
    "shell",
    short_help="Look inside a build step that failed",
    examples="""
tierce builder shell                     # the last one
tierce builder shell 3fa2c1              # the one that the failure named
tierce builder shell 3fa2c1 cat /etc/hosts
""",
    interspersed=False,
)
@argument("step", default="", metavar="[ID]")
@argument("words", nargs=-1, metavar="[COMMAND [ARG...]]")
def shell(settings: Settings, step: str, words: tuple[str, ...]) -> None:
    """Open a shell (or run COMMAND) where a RUN failed: its files, environment, user and directory.

    Its mounts, host name, network, rights and limits are there, too. Secrets and SSH agents are
    not. Changes stay in the kept files, never in an image.
    """
    from store.failed_steps import FailedSteps

    with settings.store() as store:
        failed = FailedSteps(store).get(step)
        code = _enter(settings, store, failed, words or ("/bin/sh",))
    if code:
        raise Ended(code)


def enter(settings: Settings) -> int:
    """A shell where a build failed just now; its exit code."""
    from store.failed_steps import FailedSteps

    with settings.store() as store:
        return _enter(settings, store, FailedSteps(store).get(), ("/bin/sh",))


def _enter(settings: Settings, store: Store, failed: FailedStep, words: tuple[str, ...]) -> int:
    from image.config import ContainerConfig
    from image.errors import TierceError
    from runner.containers import foreground
    from runner.containers.start import exit_status
    from runner.network.modes import Networking, parse_mode
    from runner.runtime.privileges import probe
    from runner.runtime.state import runtime_directory
    from store.failed_steps import FailedSteps
    from tierce.build.entered import environment, lent_again, options_again
    from tierce.build.failed_mounts import mounted_again
    from tierce.build.steps import runtime_mounts

    workspace = FailedSteps(store).workspace(failed)
    overlay = store.layers.overlay(failed.directories, workspace, volatile=True)
    lent, gone = lent_again(failed)
    env, unset = environment(failed, settings.environ)
    if missing := (*failed.left_out, *gone, *unset):
        echo(f"not in this shell: {', '.join(missing)}", err=True)
    options = options_again(failed, words, tty=sys.stdin.isatty())
    with mounted_again(store, failed, workspace) as mounts:
        try:
            return foreground.run(
                options,
                ContainerConfig(env=env),
                overlay,
                container_id=f"failed-{failed.id}",
                root=runtime_directory(settings.environ, os.geteuid()),
                privileges=probe(),
                environ=settings.environ,
                cwd=os.getcwd(),
                warn=lambda line: echo(f"WARNING: {line}", err=True),
                mounts=tuple(runtime_mounts((*lent, *mounts))),
                network=Networking(parse_mode(failed.network), dns=options.network.dns),
            )
        except TierceError as error:
            raise ExitCode(exit_status(error), error) from error
