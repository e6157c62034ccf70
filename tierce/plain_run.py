"""``tierce run`` where no namespace can be made: the command in a plain tree, by the isolation there is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from threading import Event

from image.config import ContainerConfig
from image.errors import InvalidInput
from runner.containers.limits import Limits
from runner.containers.options import RunOptions, Surroundings, container_spec
from runner.containers.security import Security
from runner.isolation import step
from runner.isolation.ladder import Isolation
from runner.network.modes import NetworkMode
from runner.runtime.spec import NamedUser, User
from store.store import Session


def run(
    session: Session,
    directories: Sequence[str],
    config: ContainerConfig,
    options: RunOptions,
    isolation: Isolation,
    environ: Mapping[str, str],
    identity: str,
    cwd: str,
) -> int:
    """Run to the end in the foreground, the caller's own streams being the command's.

    Raises InvalidInput for an option that needs what this isolation lacks, and what
    ``runner.isolation.step.run`` raises.
    """
    for asked, what in _refused(options):
        if asked:
            raise InvalidInput(f"isolation={isolation.rung} cannot have {what}")
    spec = container_spec(options, config, Surroundings(identity, environ, cwd, os.uname().nodename))
    process = spec.process
    assert process is not None
    workspace = session.workspace(directories[0] if directories else None)
    given = list(_given(options))
    covered = (*step.COVERED, *(item.target for item in given))
    command = step.Command(process.args, process.env, process.cwd, _user(process.user), options.network.hosts)
    with session.store.layers.trees.rootfs(directories, workspace, covered) as rootfs:
        assert isinstance(rootfs, os.PathLike)
        stdin = 0 if options.interactive else None
        return step.run(isolation.rung, rootfs, command, given, None, Event().is_set, stdin)


# --init needs nothing here: the supervisor is what the kernel gives orphans to, and it reaps them.
def _refused(options: RunOptions) -> Iterator[tuple[bool, str]]:
    network = options.network
    yield options.tty, "a terminal of its own (-t): there is no devpts to make it on"
    yield (
        any(mount.kind != "tmpfs" for mount in options.mounts) or bool(options.volumes_from),
        ("volumes: nothing can be mounted"),
    )
    yield options.security != Security() or bool(options.devices), "other rights than its own, nor devices"
    yield options.read_only, "a read-only root: nothing can be mounted"
    yield options.limits != Limits(), "limits: there is no control group to set them in"
    asked = bool(network.networks) and network.mode is not NetworkMode.HOST
    yield asked and network.mode is not NetworkMode.BRIDGE, "--network other than host: there is no network namespace"
    yield (
        bool(options.publish) or options.publish_all,
        "published ports: it shares the network, so they are open as they are",
    )


def _given(options: RunOptions) -> Iterator[step.Given]:
    """A directory in the place of a tmpfs: it ends with the container just the same."""
    for mount in options.mounts:
        yield step.Given(None, mount.target, read_only=False)


def _user(user: NamedUser | User) -> str:
    return user.text if isinstance(user, NamedUser) else f"{user.uid}:{user.gid}"
