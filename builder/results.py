"""What solving a step gives: a root filesystem that can be mounted now, and whose layers follow.

A step's files are ready as soon as its process ended, while its layer is still being
packed, hashed and compressed beside the next step. So a ``Rootfs`` has the directories at
once and the layers as a future.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from builder.context import Context
from builder.dockerfile.remotes import GitSource
from builder.ports import Downloaded
from image.descriptor import Descriptor
from image.digest import ChainID, DiffID
from image.value import dataclass
from store.layers import LayerStore


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A committed layer. ``created_s`` is when its step ran, or 0 for a base image's."""

    chain_id: ChainID
    diff_id: DiffID
    blob: Descriptor
    created_s: float = 0.0


Stack = tuple[BuiltLayer, ...]
"""Bottom to top."""


@dataclass(frozen=True, slots=True)
class Rootfs:
    """The root filesystem after a step. ``directories`` are layer directories, top first.

    When it is not ``here``, its layers are known but not unpacked, and there are no directories.
    """

    key: str
    directories: tuple[str, ...]
    stack: Future[Stack]
    here: bool = True

    @property
    def top(self) -> str | None:
        return self.directories[0] if self.directories else None


@dataclass(frozen=True, slots=True)
class Files:
    """Files the user gave; ``key`` only names them, as their content is checked where they are used."""

    key: str
    context: Context


@dataclass(frozen=True, slots=True)
class Download:
    """A downloaded file, called ``name``."""

    name: str
    file: Downloaded

    @property
    def key(self) -> str:
        """All that makes another file of it. A time counts, because it is the server's and not the disk's."""
        return f"download {self.name} {self.file.blob.digest} {self.file.modified_s}"


@dataclass(frozen=True, slots=True)
class Checkout:
    """The files of a commit, which are fetched when they are first needed."""

    source: GitSource
    commit: str

    @property
    def key(self) -> str:
        """All that makes other files of it."""
        source = self.source
        git_dir = f"{source.remote} {source.ref}" if source.keep_git_dir else ""
        return f"git {self.commit} {git_dir} submodules={source.submodules} times={source.commit_times}"


Result = Rootfs | Files | Download | Checkout


def known(stack: Stack) -> Future[Stack]:
    """A future that is done."""
    future: Future[Stack] = Future()
    future.set_result(stack)
    return future


@contextmanager
def readable(layers: LayerStore, rootfs: Rootfs) -> Iterator[int]:
    """A directory descriptor of a result's merged tree, read-only."""
    with layers.trees.opened(rootfs.directories) as fd:
        yield fd
