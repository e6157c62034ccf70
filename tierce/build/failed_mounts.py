"""The mounts of a build step that failed, once more, for a person who looks inside."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from builder.dockerfile.mounts import BindMount, CacheMount, Mount, TmpfsMount
from builder.graph import RunCommand, StepMount
from builder.ports import HostMount, MemoryMount
from builder.results import Rootfs, known
from builder.steps.mounts import MountPreparation, MountSources
from image.digest import ChainID
from store.cache_mounts import CacheMounts
from store.failed_steps import FailedMount, FailedStep
from store.layers import Workspace, hide_mounts
from store.store import Store


@contextmanager
def mounted_again(
    store: Store, failed: FailedStep, workspace: Workspace
) -> Iterator[tuple[HostMount | MemoryMount, ...]]:
    """What the step had besides its root filesystem, as far as it may be had again.

    From here on the thread has mounts of its own, where those of stages are. What is written
    to a stage is thrown away; in caches and copied files it stays. Raises SourceNotFound,
    StorageError, KernelError.
    """
    copied = [mount for mount in failed.mounts if mount.copy]
    stages = [mount for mount in failed.mounts if mount.source]
    others = [mount for mount in failed.mounts if not (mount.copy or mount.source)]
    inputs = [_rootfs(store, mount) for mount in stages]
    steps = (
        *(StepMount(_as_written(mount), position) for position, mount in enumerate(stages)),
        *(StepMount(_as_written(mount)) for mount in others),
    )
    operation = RunCommand(failed.args, failed.env, failed.cwd, failed.user, mounts=steps)
    scratch = workspace.path / f"again-{secrets.token_hex(4)}"
    sources = MountSources(CacheMounts(store.root), {}, {})
    hide_mounts()
    with MountPreparation(store.layers, sources, scratch, lambda: False) as preparation:
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            prepared = preparation.prepare(operation, inputs)
        finally:
            os.fchdir(here)
            os.close(here)
        yield (
            *(HostMount(workspace.path / mount.copy, mount.target, mount.read_only) for mount in copied),
            *prepared.mounts,
        )


def _as_written(mount: FailedMount) -> Mount:
    if mount.source:
        return BindMount(mount.target, mount.source, read_only=mount.read_only)
    if mount.id:
        return CacheMount(
            mount.target, mount.id, mode=mount.mode, uid=mount.uid, gid=mount.gid, read_only=mount.read_only
        )
    return TmpfsMount(mount.target)


def _rootfs(store: Store, mount: FailedMount) -> Rootfs:
    chain = ChainID(mount.chain) if mount.chain else None
    return Rootfs("", store.layers.directories_of(chain), known(()))
