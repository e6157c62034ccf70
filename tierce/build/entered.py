"""What a failed step had around it, once more, for a person who looks inside: all but secrets. Mostly pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder.ports import HostMount
from image.value import replace
from runner.containers.options import RunOptions
from runner.containers.stored import decode
from store.failed_steps import FailedStep


def options_again(failed: FailedStep, words: tuple[str, ...], *, tty: bool) -> RunOptions:
    """The container of a shell, with the step's network, rights and limits. Raises StorageError."""
    given = decode(failed.options, RunOptions) if failed.options else RunOptions()
    return replace(
        given,
        args=words,
        workdir=failed.cwd,
        user=failed.user,
        interactive=True,
        tty=tty,
        network=replace(given.network, networks=() if failed.network == "default" else (failed.network,)),
        hostname=failed.hostname,
        security=replace(given.security, privileged=failed.insecure),
    )


def environment(failed: FailedStep, environ: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The step's variables, and the names of those that it had and nobody has now.

    Proxies are those of ``environ``: they may hold a password, so a build keeps their names alone.
    """
    values = {name: environ.get(name) or environ.get(name.swapcase()) for name in failed.proxies}  # either spelling
    proxies = tuple(f"{name}={value}" for name, value in values.items() if value)
    return (*failed.lent_env, *proxies, *failed.env), tuple(name for name, value in values.items() if not value)


def lent_again(failed: FailedStep) -> tuple[tuple[HostMount, ...], tuple[str, ...]]:
    """Files of the host that the build lent to its steps, and the paths of those that are gone."""
    mounts = tuple(HostMount(Path(one.source), one.target, one.read_only) for one in failed.lent)
    here = tuple(mount for mount in mounts if mount.source.exists())
    return here, tuple(str(mount.source) for mount in mounts if mount not in here)
