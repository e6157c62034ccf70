"""The build cache as items with their space on the disk, and which of them are to go.

Three kinds, in BuildKit's words: ``regular`` is the result of a step, ``exec.cachemount`` the
directory of a ``RUN --mount=type=cache``; and ``exec.failed`` what a failed step left to look at.
``choose`` is pure; nothing is ever removed unless it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, assert_never

from image.digest import ChainID
from image.errors import InvalidInput
from image.value import dataclass
from store.cache_mounts import CacheDirectory, CacheMounts
from store.disk_usage import disk_usage
from store.failed_steps import FailedStep, FailedSteps
from store.metadata import CacheRecord
from store.store import Reclaimed, Store
from store.uses import needed_by_images

Kind = Literal["regular", "exec.cachemount", "exec.failed"]
TYPES: Final = (
    "regular",
    "exec.cachemount",
    "exec.failed",
    "source.local",
    "source.git.checkout",
    "frontend",
    "internal",
)
"""Types that filters take. The last four are BuildKit's, and have nothing here."""


_KEY_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class CacheItem:
    """``size`` is what would be free without it, in bytes on the disk, 0 while something else needs the same.

    ``shared``: an image needs it. ``in_use``: a live process does, so it can't go now.
    ``last_used_s`` is the last use of it or of anything that stands on it.
    """

    id: str
    kind: Kind
    size: int
    shared: bool
    in_use: bool
    created_s: float
    used_s: float
    last_used_s: float
    uses: int
    description: str
    thing: CacheRecord | CacheDirectory | FailedStep
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds in bytes, 0 for none, as BuildKit understands them.

    The cache shrinks to ``max_used``, and further until ``min_free`` of the disk is free, but
    never below ``reserved``.
    """

    reserved: int = 0
    max_used: int = 0
    min_free: int = 0

    def keep(self, total: int, free: int) -> int:
        """How many bytes of ``total`` may stay when ``free`` are free."""
        keep = self.max_used
        excess = self.min_free - free
        if excess > 0:
            keep = min(keep, total - excess) if keep else total - excess
        elif self.min_free and not self.max_used:
            keep = total
        return max(keep, self.reserved)

    def __bool__(self) -> bool:
        return bool(self.reserved or self.max_used or self.min_free)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which items are meant. ``shared`` and ``in_use`` None mean either."""

    older_than_s: float | None = None
    ids: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    shared: bool | None = None
    in_use: bool | None = None
    descriptions: tuple[str, ...] = ()

    def means(self, item: CacheItem) -> bool:
        return (
            (self.older_than_s is None or item.used_s < self.older_than_s)
            and (not self.ids or any(item.id.startswith(prefix) for prefix in self.ids))
            and (not self.types or item.kind in self.types)
            and (self.shared is None or item.shared == self.shared)
            and (self.in_use is None or item.in_use == self.in_use)
            and all(text in item.description for text in self.descriptions)
        )


def choose(items: Sequence[CacheItem], wish: Wish, caps: Caps, free: int) -> list[CacheItem]:
    """What goes: what ``wish`` means and no live process uses, the least recently used first.

    With caps, only as much as they ask for.
    """
    going = [item for item in items if wish.means(item) and not item.in_use]
    if not caps:
        return going
    total = sum(item.size for item in items)
    keep = caps.keep(total, free)
    chosen: list[CacheItem] = []
    for item in sorted(going, key=lambda item: (item.last_used_s, -item.depth)):
        if total <= keep:
            break
        chosen.append(item)
        total -= item.size
    return chosen


def cache_items(store: Store) -> list[CacheItem]:
    """Everything that the cache holds, most recently used first. Walks the layers' directories."""
    return sorted([*_steps(store), *_mounts(store), *_failed(store)], key=lambda item: -item.used_s)


def _steps(store: Store) -> Iterable[CacheItem]:
    metadata = store.metadata
    records = metadata.cache()
    layers = {layer.chain_id: layer for layer in metadata.layers()}
    of_images = needed_by_images(metadata)
    leased = metadata.leased("chain") | metadata.leased("blob")
    parents = {chain: layer.parent for chain, layer in layers.items()}
    uses = _last_uses(records, parents)
    counted: set[str] = set()
    for record in records:
        if _is_link(record):
            continue
        blob = str(record.blob.digest) if record.blob else ""
        size = 0
        for part in (str(record.chain_id or ""), blob):
            if part and part not in counted and part not in of_images:
                counted.add(part)
                size += _part_size(store, record, layers, part)
        chain = record.chain_id
        layer = layers.get(chain) if chain else None
        yield CacheItem(
            record.key, "regular", size if layer or record.blob else record.size,
            str(chain) in of_images or (chain is None and blob in of_images),
            str(chain) in leased or (chain is None and blob in leased),
            record.created_s, record.used_s, uses.get(chain, record.used_s) if chain else record.used_s,
            record.uses, record.label, record, _depth(chain, parents),
        )  # fmt: skip


def _is_link(record: CacheRecord) -> bool:
    """A record that only leads to another one: it goes with that."""
    return record.blob is None and record.chain_id is None and len(record.label) == _KEY_LENGTH


def _part_size(store: Store, record: CacheRecord, layers: Mapping[ChainID, object], part: str) -> int:
    if record.chain_id is not None and part == str(record.chain_id):
        return (
            disk_usage(store.layers.base / store.layers.get(record.chain_id).directory)
            if record.chain_id in layers
            else 0
        )
    return disk_usage(store.content.path(record.blob.digest)) if record.blob else 0


def _last_uses(records: Iterable[CacheRecord], parents: Mapping[ChainID, ChainID | None]) -> dict[ChainID, float]:
    """When a layer, or one that stands on it, was last used: without it they could not be."""
    uses: dict[ChainID, float] = {}
    for record in records:
        chain = record.chain_id
        while chain is not None and uses.get(chain, -1.0) < record.used_s:
            uses[chain] = record.used_s
            chain = parents.get(chain)
    return uses


def _depth(chain: ChainID | None, parents: Mapping[ChainID, ChainID | None]) -> int:
    depth = 0
    while chain is not None:
        chain = parents.get(chain)
        depth += 1
    return depth


def _mounts(store: Store) -> Iterable[CacheItem]:
    caches = CacheMounts(store.root)
    for mount in caches.directories(sizes=False):
        yield CacheItem(
            f"{mount.key}-{mount.path.name}", "exec.cachemount", disk_usage(mount.path), False, caches.in_use(mount),
            mount.used_s, mount.used_s, mount.used_s, 0, f"cache mount {mount.id}", mount,
        )  # fmt: skip


def _failed(store: Store) -> Iterable[CacheItem]:
    failed = FailedSteps(store)
    for step_id in failed.ids():
        step = failed.get(step_id)
        path = store.layers.base / step.directory
        when_s = path.stat().st_mtime if path.exists() else 0.0
        yield CacheItem(
            step.id, "exec.failed", disk_usage(path), False, False, when_s, when_s, when_s, 0, f"failed: {step.name}", step
        )  # fmt: skip


def prune_cache(store: Store, wish: Wish, caps: Caps) -> tuple[list[CacheItem], Reclaimed]:
    """Remove what ``choose`` chooses, and what nothing needs afterwards.

    What comes into use meanwhile keeps its files. The size is what the items took on the disk.
    """
    disk = os.statvfs(store.root)
    chosen = choose(cache_items(store), wish, caps, disk.f_bavail * disk.f_frsize)
    gone: list[CacheItem] = []
    keys: list[str] = []
    for item in chosen:
        match item.thing:
            case CacheRecord():
                keys.append(item.thing.key)
                gone.append(item)
            case CacheDirectory():
                if CacheMounts(store.root).remove(item.thing):
                    gone.append(item)
            case FailedStep():
                FailedSteps(store).remove(item.id)
                gone.append(item)
            case _:
                assert_never(item.thing)
    store.metadata.remove_cached(keys)
    kept = {record.key for record in store.metadata.cache()}
    store.metadata.remove_cached(
        record.key for record in store.metadata.cache() if _is_link(record) and record.label not in kept
    )
    collected = store.collect()
    return gone, Reclaimed(collected.blobs, collected.layers, sum(item.size for item in gone))


def parse_wish(filters: Sequence[tuple[str, str]], older_than_s: float | None, *, everything: bool) -> Wish:
    """``--filter`` of prune and du, without ``until``. Raises InvalidInput."""
    fields: dict[str, list[str]] = {}
    for name, value in filters:
        fields.setdefault(name, []).append(value)
    types = tuple(fields.pop("type", ()))
    for kind in types:
        if kind not in TYPES:
            raise InvalidInput(f"filter type={kind}: unknown type: there are {', '.join(TYPES)}")
    ids = tuple(fields.pop("id", ()))
    shared = _boolean(fields, "shared")
    private = _boolean(fields, "private")
    if private is not None:
        shared = not private
    wish = Wish(
        older_than_s, ids, types, shared if shared is not None or everything else False,
        _boolean(fields, "inuse"), tuple(fields.pop("description", ())),
    )  # fmt: skip
    if fields:
        known = "until, id, type, inuse, shared, private, description"
        raise InvalidInput(f"filter {sorted(fields)[0]!r} is not known; there are: {known}")
    return wish


def _boolean(fields: dict[str, list[str]], name: str) -> bool | None:
    words = fields.pop(name, [])
    if not words:
        return None
    if words[-1] not in {"", "true", "false", "1", "0"}:
        raise InvalidInput(f"filter {name}={words[-1]}: want true or false")
    return words[-1] in {"", "true", "1"}
