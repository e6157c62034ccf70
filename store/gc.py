"""What is garbage, decided apart from its removal.

``garbage`` is pure. ``Store.collect`` asks it inside one metadata transaction, so nothing
can come into use between the decision and the removal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from image.digest import ChainID, Digest
from image.value import dataclass
from store.metadata import LayerRecord


@dataclass(frozen=True, slots=True)
class Garbage:
    """What nothing needs. ``layers`` in an order in which children come before parents."""

    blobs: tuple[Digest, ...]
    layers: tuple[LayerRecord, ...]
    directories: tuple[str, ...]


def garbage(
    *,
    blobs: Iterable[Digest],
    used_blobs: set[str],
    layers: Iterable[LayerRecord],
    used_chains: set[str],
    directories: Iterable[str],
    used_directories: set[str],
) -> Garbage:
    """Everything on disk that no image, cached step or running process reaches.

    A used chain keeps every layer below it.
    """
    by_chain = {layer.chain_id: layer for layer in layers}
    kept = _with_parents(by_chain, (chain for chain in by_chain if str(chain) in used_chains))
    dead = [layer for layer in by_chain.values() if layer.chain_id not in kept]
    known = {layer.directory for layer in by_chain.values()}
    return Garbage(
        tuple(digest for digest in blobs if str(digest) not in used_blobs),
        tuple(sorted(dead, key=lambda layer: -_depth(by_chain, layer))),
        tuple(name for name in directories if name not in known and name not in used_directories),
    )


def _with_parents(layers: Mapping[ChainID, LayerRecord], roots: Iterable[ChainID]) -> set[ChainID]:
    reached: set[ChainID] = set()
    for root in roots:
        chain: ChainID | None = root
        while chain is not None and chain not in reached and chain in layers:
            reached.add(chain)
            chain = layers[chain].parent
    return reached


def _depth(layers: Mapping[ChainID, LayerRecord], layer: LayerRecord) -> int:
    depth = 0
    while layer.parent is not None and layer.parent in layers:
        layer = layers[layer.parent]
        depth += 1
    return depth
