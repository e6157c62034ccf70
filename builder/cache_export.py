"""What a build knows, as documents that another build can use; and back. Pure.

Two forms hold the same records:

- a cache of its own is an OCI image manifest. Its layers are the cached layers' blobs, its
  config says which step each belongs to:

      {"version": 1,
       "records": [{"key": K, "chain": C, "diff": D, "layer": 3, "label": "...", "created": 1.5},
                   {"key": K, "to": K2}],
       "mounts": [{"name": N, "id": "...", "layer": 7, "diff": D}]}

- an image carries the records of its own layers in the member ``dev.tierce.cache`` of its
  configuration, which other tools pass over. It is there and not in an annotation because a
  configuration survives every way that an image can go: a docker daemon, an archive, schema 2.

A record names its layer by position, its step by key, and the stack that it fits on by chain
id; a builder takes it only if the chain is the one that its own base gives. Blobs of base
images do not travel: whoever builds on them has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from builder.results import Stack
from builder.solve import SolvedStep
from image.descriptor import Descriptor
from image.digest import ChainID, DiffID, chain_ids
from image.document import Node, decode, encode
from image.errors import InvalidConfig, InvalidDigest
from image.value import dataclass, field
from store.metadata import CacheRecord

CACHE_CONFIG: Final = "application/vnd.tierce.cache.config.v1+json"
INLINE_MEMBER: Final = "dev.tierce.cache"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class MountRecord:
    """The contents of a cache mount: ``name`` is its key in the store, ``id`` what a Dockerfile calls it."""

    name: str
    id: str
    blob: Descriptor
    diff_id: DiffID


@dataclass(frozen=True, slots=True)
class CacheContents:
    """What a cache says, by key."""

    records: Mapping[str, CacheRecord] = field(default_factory=dict)
    mounts: Mapping[str, MountRecord] = field(default_factory=dict)


def records_of(steps: Iterable[SolvedStep], target: Stack, *, every_step: bool) -> tuple[CacheRecord, ...]:
    """The records of a solved graph: of every step, or of those whose layers the target has."""
    kept = {layer.chain_id for layer in target}
    found: dict[str, CacheRecord] = {}
    for solved in steps:
        if not solved.stack or not (every_step or solved.stack[-1].chain_id in kept):
            continue
        top = solved.stack[-1]
        found[solved.key] = CacheRecord(
            solved.key, top.chain_id, top.diff_id, top.blob, 0, solved.step.name, top.created_s
        )
        if solved.definition is not None:
            found[solved.definition] = CacheRecord(solved.definition, None, None, None, 0, solved.key)
    return tuple(found.values())


def encode_cache(records: Sequence[CacheRecord], mounts: Sequence[MountRecord]) -> tuple[bytes, tuple[Descriptor, ...]]:
    """The config and the layers of a cache. The same records give the same bytes."""
    blobs = [record.blob for record in records if record.blob is not None] + [mount.blob for mount in mounts]
    layers = tuple({blob.digest: blob for blob in blobs}.values())
    places = {blob.digest: place for place, blob in enumerate(layers)}
    document = {
        "version": _VERSION,
        "records": [
            _link(record) if record.blob is None else {
                "key": record.key, "chain": str(record.chain_id), "diff": str(record.diff_id),
                "layer": places[record.blob.digest], "label": record.label, "created": record.created_s,
            }
            for record in records
        ],
        "mounts": [
            {"name": mount.name, "id": mount.id, "layer": places[mount.blob.digest], "diff": str(mount.diff_id)}
            for mount in mounts
        ],
    }  # fmt: skip
    return encode(document), layers


def decode_cache(raw: bytes, layers: Sequence[Descriptor]) -> CacheContents:
    """Raises InvalidConfig."""
    document = _versioned(decode(raw, InvalidConfig))
    records = [_decode_record(node, layers) for node in document.need("records").items()]
    mounts = [
        MountRecord(
            node.need("name").string(), node.need("id").string(), _layer(node, layers), _diff_id(node.need("diff"))
        )
        for node in document.need("mounts").items()
    ]
    return CacheContents({record.key: record for record in records}, {mount.name: mount for mount in mounts})


def encode_inline(records: Iterable[CacheRecord], stack: Stack) -> dict[str, object]:
    """The members of an image's configuration that hold the records of its layers."""
    places = {layer.chain_id: place for place, layer in enumerate(stack)}
    listed = [
        _link(record) if record.chain_id is None else {
            "key": record.key, "layer": places[record.chain_id], "label": record.label, "created": record.created_s,
        }
        for record in records
    ]  # fmt: skip
    return {INLINE_MEMBER: {"version": _VERSION, "records": listed}}


def decode_inline(raw: bytes, diff_ids: Sequence[DiffID], layers: Sequence[Descriptor]) -> CacheContents:
    """The records of an image with this configuration; none when it carries none. Raises InvalidConfig."""
    member = decode(raw, InvalidConfig).get(INLINE_MEMBER)
    if member is None or len(diff_ids) != len(layers):
        return CacheContents()
    chains = chain_ids(diff_ids)
    records: dict[str, CacheRecord] = {}
    for node in _versioned(member).need("records").items():
        key = node.need("key").string()
        if node.get("to") is not None:
            records[key] = _decode_link(node, key)
            continue
        blob, place = _layer(node, layers), node.need("layer").integer()
        label, created_s = node.maybe_string("label"), _seconds(node)
        records[key] = CacheRecord(key, chains[place], diff_ids[place], blob, 0, label, created_s)
    return CacheContents(records)


def _link(record: CacheRecord) -> dict[str, Any]:
    return {"key": record.key, "to": record.label}


def _decode_link(node: Node, key: str) -> CacheRecord:
    return CacheRecord(key, None, None, None, 0, node.need("to").string())


def _decode_record(node: Node, layers: Sequence[Descriptor]) -> CacheRecord:
    key = node.need("key").string()
    if node.get("to") is not None:
        return _decode_link(node, key)
    try:
        chain = ChainID(node.need("chain").string())
    except InvalidDigest as error:
        raise node.fail(str(error)) from error
    label, created_s = node.maybe_string("label"), _seconds(node)
    return CacheRecord(key, chain, _diff_id(node.need("diff")), _layer(node, layers), 0, label, created_s)


def _versioned(document: Node) -> Node:
    version = document.need("version")
    if version.integer() != _VERSION:
        raise version.fail(f"version {version.integer()} needs another version of Tierce")
    return document


def _layer(node: Node, layers: Sequence[Descriptor]) -> Descriptor:
    place = node.need("layer")
    if not 0 <= place.integer() < len(layers):
        raise place.fail(f"there are {len(layers)} layers")
    return layers[place.integer()]


def _diff_id(node: Node) -> DiffID:
    try:
        return DiffID(node.string())
    except InvalidDigest as error:
        raise node.fail(str(error)) from error


def _seconds(node: Node) -> float:
    value = node.need("created")
    if not isinstance(value.value, int | float) or isinstance(value.value, bool) or not 0 <= value.value < 1e12:
        raise value.fail("not a time")
    return float(value.value)
