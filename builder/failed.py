"""What is written down of a RUN that failed, so that a person can look inside. Pure.

All of its surroundings, and no secret: of secrets, agents and proxies the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from builder.dockerfile.mounts import SecretMount, SshMount
from builder.graph import RunCommand, Step
from builder.ports import DEFAULT_HOSTNAME, HostMount, MemoryMount
from builder.results import Rootfs
from builder.steps.mounts import Prepared
from store.failed_steps import FailedMount, FailedStep
from store.layers import Workspace


def failed_step(
    step_id: str,
    step: Step,
    operation: RunCommand,
    base: Rootfs,
    workspace: Workspace,
    mounts: tuple[FailedMount, ...],
    lent: Prepared,
    options: str,
) -> FailedStep:
    """``mounts`` are those of the step that can be had again, ``lent`` what every step has.

    ``options`` are ``Sandbox.options``.
    """
    return FailedStep(
        id=step_id,
        name=step.name,
        directory=workspace.directory,
        directories=base.directories,
        args=operation.args,
        env=operation.env,
        cwd=operation.cwd,
        user=operation.user,
        network=operation.network,
        mounts=mounts,
        left_out=tuple(_left_out(operation)),
        hostname=operation.hostname or DEFAULT_HOSTNAME,
        insecure=operation.security == "insecure",
        lent=tuple(_lent(lent.mounts)),
        lent_env=lent.env,
        proxies=tuple(word.partition("=")[0] for word in operation.unkeyed_env),
        options=options,
    )


def _lent(mounts: Sequence[HostMount | MemoryMount]) -> Iterator[FailedMount]:
    for mount in mounts:
        if isinstance(mount, HostMount):
            yield FailedMount(mount.target, source=str(mount.source), read_only=mount.read_only)


def _left_out(operation: RunCommand) -> Iterator[str]:
    """The secrets and agents of a step, which nobody has again by hand."""
    for step_mount in operation.mounts:
        match step_mount.mount:
            case SecretMount() as secret:
                yield f"secret {secret.id}"
            case SshMount() as ssh:
                yield f"ssh agent {ssh.id}"
            case _:
                pass
