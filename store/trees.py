"""Where a step sees its root filesystem: by an overlay mount, or without any mount.

A stack of layer directories becomes one tree, and what a step changes in it ends in a
workspace in overlay form. ``OverlayTrees`` lets the kernel do that. Where nothing can be
mounted (an unprivileged container), ``store.plain_trees`` gives the same with directories.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from store.layers import LayerStore, OverlayMount, Workspace, mounted


class Trees(Protocol):
    """Merged trees of layer directories, which are given top first."""

    mounts: bool
    """Whether anything can be mounted; without, files are put in place for as long as a step runs."""

    def opened(self, directories: Sequence[str], workspace: Workspace | None = None) -> AbstractContextManager[int]:
        """A descriptor of the tree: read-only, or writable into ``workspace``.

        Raises KernelError, StorageError.
        """

    def rootfs(
        self, directories: Sequence[str], workspace: Workspace, covered: Sequence[str]
    ) -> AbstractContextManager[OverlayMount | Path]:
        """The tree for a process to run in, with its changes in ``workspace`` afterwards.

        ``covered`` are paths inside that are not the layers' while it runs.
        """


class OverlayTrees:
    """By overlay mounts, which no other process sees. Implements ``Trees``."""

    mounts = True

    def __init__(self, layers: LayerStore) -> None:
        self._layers = layers

    @contextmanager
    def opened(self, directories: Sequence[str], workspace: Workspace | None = None) -> Iterator[int]:
        with mounted(self._layers.overlay(directories, workspace, volatile=workspace is not None)) as fd:
            yield fd

    @contextmanager
    def rootfs(
        self, directories: Sequence[str], workspace: Workspace, covered: Sequence[str]
    ) -> Iterator[OverlayMount | Path]:
        """What is ``covered`` will be mounted over, by the process's own sandbox."""
        del covered
        yield self._layers.overlay(directories, workspace, volatile=True)
