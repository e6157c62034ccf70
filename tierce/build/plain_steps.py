"""RUN steps where no namespace can be made. Beside ``steps``, which runs them in containers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from threading import Event
from typing import TYPE_CHECKING, assert_never

from builder.ports import HostMount, MemoryMount, SandboxRequest, Stream
from image.errors import InvalidInput
from runner.isolation import step
from runner.isolation.ladder import Isolation

if TYPE_CHECKING:
    from runner.containers.options import RunOptions


class PlainStepRunner:
    """Runs the steps of one build in the plain trees of the store; safe to use from several threads."""

    def __init__(self, isolation: Isolation, options: RunOptions | None) -> None:
        self._isolation = isolation
        self._hosts = options.network.hosts if options is not None else ()
        if options is not None:
            from tierce.build.step_limits import only_names

            if not only_names(options):
                raise InvalidInput(
                    f"isolation={isolation.rung} cannot limit memory, processors or other resources of a step, "
                    "nor change its rights and name servers: there is no control group or namespace to do it by"
                )

    def close(self) -> None:
        """Nothing is held between steps."""

    def prepare(self) -> None:
        """Nothing is shared."""

    def run(self, request: SandboxRequest, output: Callable[[Stream, bytes], None], cancelled: Event) -> int:
        """See ``builder.ports.Sandbox.run``."""
        if request.network == "none":
            raise InvalidInput(
                f"isolation={self._isolation.rung} cannot run a step with --network=none: "
                "there is no network namespace to do it by"
            )
        if request.insecure:
            raise InvalidInput(
                f"isolation={self._isolation.rung} cannot run a step with --security=insecure: "
                "there are no privileges to give it"
            )
        assert isinstance(request.rootfs, os.PathLike)
        command = step.Command(request.args, request.env, request.cwd, request.user, self._hosts)
        return step.run(self._isolation.rung, request.rootfs, command, list(_given(request)), output, cancelled.is_set)


def _given(request: SandboxRequest) -> Iterator[step.Given]:
    for mount in request.mounts:
        match mount:
            case HostMount():
                yield step.Given(mount.source, mount.target, mount.read_only)
            case MemoryMount():
                yield step.Given(None, mount.target, read_only=False)
            case _:
                assert_never(mount)
