"""RUN: a process in a fresh sandbox over the root filesystem so far.

Spec: dockerfile.md 1.3, 1.4.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Final

from builder.graph import RunCommand
from builder.ports import DEFAULT_HOSTNAME, HostMount, Sandbox, SandboxRequest, Stream
from builder.results import Result, Rootfs, readable
from builder.steps.mounts import MountPreparation, MountSources, Prepared
from builder.steps.tree import lstat
from image.errors import Cancelled, ProcessFailed
from store.failed_steps import FailedMount
from store.layers import LayerStore, Workspace, in_private_mounts

_MOUNT_POINTS: Final = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf")
"""What a sandbox mounts over; where an image lacks one, mounting leaves an empty stub."""
_SCRIPT: Final = "script"


class RunFailed(ProcessFailed):
    """The process of a step failed. ``mounts`` are those that a person can have again, to look inside."""

    def __init__(self, error: ProcessFailed, mounts: tuple[FailedMount, ...]) -> None:
        self.mounts = mounts
        super().__init__(error.argv, error.status)


class RunEffect:
    """Runs processes; stops them when ``cancelled`` is set."""

    def __init__(self, layers: LayerStore, sandbox: Sandbox, sources: MountSources, cancelled: Event) -> None:
        self._layers = layers
        self._sandbox = sandbox
        self._sources = sources
        self._cancelled = cancelled

    def perform(
        self,
        operation: RunCommand,
        base: Rootfs,
        others: Sequence[Result],
        workspace: Workspace,
        output: Callable[[Stream, bytes], None],
    ) -> None:
        """What the process changed is in ``workspace`` afterwards.

        Raises RunFailed; Cancelled; NotFound for a missing secret; KernelError when there
        can be no sandbox.
        """
        self._sandbox.prepare()
        if not operation.mounts:
            self._execute(operation, base, workspace, output, Prepared((), ()))
            return

        def with_mounts() -> None:
            scratch = workspace.path / "mounts"
            with MountPreparation(self._layers, self._sources, scratch, self._cancelled.is_set) as preparation:
                prepared = preparation.prepare(operation, others)
                try:
                    self._execute(operation, base, workspace, output, prepared)
                except RunFailed as error:
                    kept = preparation.keep(operation, others)
                    raise RunFailed(error, (*error.mounts, *kept)) from None

        if self._layers.trees.mounts:
            in_private_mounts(with_mounts)
        else:
            with_mounts()

    def _execute(
        self,
        operation: RunCommand,
        base: Rootfs,
        workspace: Workspace,
        output: Callable[[Stream, bytes], None],
        prepared: Prepared,
    ) -> None:
        with _script(operation, workspace) as script:
            everywhere = self._sources.everywhere
            mounts = (*everywhere.mounts, *prepared.mounts, *script)
            covered = (*_MOUNT_POINTS, *(mount.target.strip("/") for mount in mounts))
            with self._layers.trees.rootfs(base.directories, workspace, covered) as rootfs:
                request = SandboxRequest(
                    rootfs,
                    operation.args,
                    _merged(everywhere.env, operation.unkeyed_env, operation.env, prepared.env),
                    operation.cwd,
                    operation.user,
                    operation.network,
                    mounts,
                    operation.hostname or DEFAULT_HOSTNAME,
                    operation.security == "insecure",
                )
                status = self._sandbox.run(request, output, self._cancelled)
                if self._layers.trees.mounts:
                    self._remove_stubs(base, workspace, covered)
                if self._cancelled.is_set():
                    raise Cancelled("the build was cancelled")
                if status != 0:
                    raise RunFailed(ProcessFailed(operation.args, status), _kept_script(operation))

    def _remove_stubs(self, base: Rootfs, workspace: Workspace, points: tuple[str, ...]) -> None:
        """Take back what mounting put into the layer, so that a layer holds what the process did.

        The process can't reach below a mount, so whatever the layer has there is a stub.
        """
        stubs = [point for point in points if os.path.lexists(workspace.diff / point)]
        if not stubs:
            return
        with readable(self._layers, base) as below:
            for stub in stubs:
                _remove(workspace.diff / stub)
                self._remove_untouched_parents(below, workspace, posixpath.dirname(stub))

    def _remove_untouched_parents(self, below: int, workspace: Workspace, directory: str) -> None:
        while directory:
            path = workspace.diff / directory
            if os.listdir(path) or not _unchanged(lstat(below, directory), path.lstat()):
                return
            path.rmdir()
            directory = posixpath.dirname(directory)


def _merged(*environments: tuple[str, ...]) -> tuple[str, ...]:
    """One value a name, where the last word counts."""
    values = {name: value for env in environments for name, _, value in (item.partition("=") for item in env)}
    return tuple(f"{name}={value}" for name, value in values.items())


def _unchanged(before: os.stat_result | None, after: os.stat_result) -> bool:
    """Whether a directory of the layer only exists because something was mounted in it."""
    if before is None:
        return True
    return (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)


def _remove(path: os.PathLike[str]) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


@contextmanager
def _script(operation: RunCommand, workspace: Workspace) -> Iterator[tuple[HostMount, ...]]:
    """The heredoc that is the program, as a read-only file in the sandbox. It stays if it failed."""
    if operation.script is None:
        yield ()
        return
    path = workspace.path / _SCRIPT
    path.write_bytes(operation.script.content)
    path.chmod(0o755)
    try:
        yield (HostMount(path, operation.script.path, read_only=True),)
    except RunFailed:
        raise
    except BaseException:
        path.unlink()
        raise
    path.unlink()


def _kept_script(operation: RunCommand) -> tuple[FailedMount, ...]:
    if operation.script is None:
        return ()
    return (FailedMount(operation.script.path, copy=_SCRIPT, read_only=True),)
