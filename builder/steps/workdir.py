"""WORKDIR: a directory that exists, owned by the current user if it had to be made.

Spec: dockerfile.md 1.3.
"""

from __future__ import annotations

from builder.graph import MakeDirectory
from builder.results import Rootfs
from builder.steps.owners import user_owner
from builder.steps.tree import make_directories
from image.errors import InvalidInput
from store.content import storage_errors
from store.layers import LayerStore, Workspace


def make_directory(
    operation: MakeDirectory, layers: LayerStore, base: Rootfs, workspace: Workspace, *, mtime_s: int | None
) -> None:
    """Raises InvalidInput when something else is in the way; StorageError."""
    with layers.trees.opened(base.directories, workspace) as root, storage_errors(f"make directory {operation.path}"):
        try:
            make_directories(root, operation.path, user_owner(root, operation.user), mtime_s=mtime_s)
        except NotADirectoryError as error:
            raise InvalidInput(
                f"cannot make directory {operation.path}: {error.filename} is not a directory"
            ) from error
