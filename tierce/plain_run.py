"""``tierce run`` where no namespace can be made: the command in a plain tree, by the isolation there is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event

from image.config import ContainerConfig
from image.errors import InvalidInput, TierceError
from image.value import replace
from runner.containers.events import tell, tell_change
from runner.containers.limits import Limits
from runner.containers.names import random_name
from runner.containers.options import RunOptions, Surroundings, container_spec
from runner.containers.policy import Policy
from runner.containers.records import Made, Record, State
from runner.containers.security import Security
from runner.containers.start import CLI_FAILED, exit_status
from runner.isolation import step
from runner.isolation.ladder import Isolation
from runner.network.modes import NetworkMode
from runner.runtime.spec import NamedUser, User
from store.journal import Journal
from store.store import Session
from tierce.images import RunnableImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


def run(
    session: Session,
    directories: Sequence[str],
    config: ContainerConfig,
    options: RunOptions,
    isolation: Isolation,
    environ: Mapping[str, str],
    identity: str,
    cwd: str,
    start: Callable[[], None],
) -> int:
    """Run to the end in the foreground, the caller's own streams being the command's.

    ``start`` is called when nothing is left to do but that.

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
        start()
        return step.run(isolation.rung, rootfs, command, given, None, Event().is_set, stdin)


class Told:
    """What is told of such a container, which has no record, while the block lasts. ``code`` is its exit code."""

    def __init__(
        self, journal: Journal, identity: str, image: RunnableImage, options: RunOptions, policy: Policy,
        image_name: str, name: str,
    ) -> None:  # fmt: skip
        made = Made(image_name, image.config.config, "", (), "", options, policy)
        self._journal = journal
        self._record = Record(identity, name or random_name(), str(image.target.digest), time.time(), made, State())
        self.code = CLI_FAILED

    def __enter__(self) -> Self:
        for action in ("create", "attach"):
            tell(self._journal, self._record, action)
        return self

    def start(self) -> None:
        """The command is about to be executed."""
        self._change(State("running", started_s=time.time()))

    def _change(self, state: State) -> None:
        tell_change(self._journal, self._record, state)
        self._record = replace(self._record, state=state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, TierceError):
            self.code = exit_status(error)
        self._change(replace(self._record.state, status="exited", code=self.code, finished_s=time.time()))
        tell(self._journal, self._record, "destroy")


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
