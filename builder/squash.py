"""``--squash``: the layers that a build made as one."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import TYPE_CHECKING

from builder.results import BuiltLayer, Stack
from image import media_types
from image.descriptor import Descriptor
from store.metadata import CacheRecord

if TYPE_CHECKING:
    from store.layers import Workspace
    from store.store import Session


def squashed(session: Session, stack: Stack, base_depth: int, *, clamp_s: int | None) -> Stack:
    """``stack`` with everything above its first ``base_depth`` layers in one layer. Done once, then cached.

    Raises StorageError, KernelError.
    """
    base, new = stack[:base_depth], stack[base_depth:]
    if len(new) < 2:
        return stack
    parent = base[-1].chain_id if base else None
    text = f"squash\0{parent}\0{new[-1].chain_id}\0{clamp_s}" + ("" if clamp_s is None else "\0portable")
    key = hashlib.sha256(text.encode()).hexdigest()
    record = session.store.metadata.cached(key)
    if record is not None and record.chain_id and record.diff_id and record.blob:  # noqa: SIM102 - two questions
        if session.hold_layers(record.chain_id) and session.reuse(record.blob.digest):
            return (*base, BuiltLayer(record.chain_id, record.diff_id, record.blob, new[-1].created_s))
    layers = session.store.layers
    below = layers.directories_of(parent)
    workspace = session.workspace(below[0] if below else None)
    paths = [layers.diff(layers.get(layer.chain_id)) for layer in reversed(new)]
    with layers.trees.opened(below) if below else nullcontext() as root:
        from store.squash import merge_layers

        merge_layers(paths, root, workspace.diff)
    return (*base, _commit(session, workspace, base, new, key, clamp_s))


def _commit(
    session: Session, workspace: Workspace, base: Stack, new: Stack, key: str, clamp_s: int | None
) -> BuiltLayer:
    from store.layer_blob import pack_blob

    with session.writer() as writer:
        packed = pack_blob(workspace.diff, writer.write_hashed, "gzip", clamp_s=clamp_s)
        writer.commit_as(packed.digest)
    blob = Descriptor(media_types.OCI_LAYER_GZIP, packed.digest, packed.size)
    parent = base[-1].chain_id if base else None
    layer = session.commit_layer(workspace, parent, packed.diff_id, size=packed.unpacked_size, entries=packed.entries)
    label = f"squash of {len(new)} layers"
    session.store.metadata.add_cached(
        CacheRecord(key, layer.chain_id, layer.diff_id, blob, packed.unpacked_size, label)
    )
    return BuiltLayer(layer.chain_id, layer.diff_id, blob, new[-1].created_s)
