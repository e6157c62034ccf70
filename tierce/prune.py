"""Removing what is not needed: which things go, decided apart from their going."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from image.errors import Conflict, ContainerNotFound, VolumeInUse, VolumeNotFound
from image.value import dataclass
from store.container_rows import ContainerRows
from store.metadata import CacheRecord, ImageRecord
from store.store import Reclaimed, Store

if TYPE_CHECKING:
    from runner.containers.records import Record, Records
    from runner.volumes.volumes import Volume, Volumes


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went. ``reclaimed`` counts the space."""

    images: tuple[ImageRecord, ...]
    cached: tuple[CacheRecord, ...]
    reclaimed: Reclaimed


def prune(
    store: Store,
    *,
    images: Callable[[ImageRecord], bool] | None = None,
    cached: Callable[[CacheRecord], bool] | None = None,
) -> Pruned:
    """Forget the images and cached steps that a test picks, then collect what nothing needs.

    An image that a container was made of stays. Picking and forgetting is one transaction, so
    nothing can come into use in between.
    """
    with store.metadata.transaction():
        in_use = {row.image for row in ContainerRows(store.metadata).all()}
        free = [record for record in store.metadata.images() if str(record.target.digest) not in in_use]
        gone_images = [record for record in free if images is not None and images(record)]
        gone_cached = [record for record in store.metadata.cache() if cached is not None and cached(record)]
        for record in gone_images:
            store.remove_image(record.target.digest)
        store.metadata.remove_cached(record.key for record in gone_cached)
    return Pruned(tuple(gone_images), tuple(gone_cached), store.collect())


def picks_image(
    *, everything: bool, older_than_s: float | None, created: Callable[[str], datetime | None],
    labels: Callable[[ImageRecord], bool] = lambda _: True,
) -> Callable[[ImageRecord], bool]:  # fmt: skip
    """Images without a name, or all of them; only those made before a moment, if one is given."""

    def picks(record: ImageRecord) -> bool:
        moment = created(record.created)
        born_s = moment.timestamp() if moment else record.added_s
        return (everything or not record.names) and (older_than_s is None or born_s < older_than_s) and labels(record)

    return picks


def picks_cached(*, older_than_s: float | None, keys: Iterable[str] | None = None) -> Callable[[CacheRecord], bool]:
    """Cached steps that no build has used since a moment; all, without one. ``keys`` narrows it down."""
    chosen = None if keys is None else set(keys)

    def picks(record: CacheRecord) -> bool:
        return (older_than_s is None or record.used_s < older_than_s) and (chosen is None or record.key in chosen)

    return picks


def prune_containers(records: Records, chosen: Callable[[Record], bool]) -> tuple[list[str], int]:
    """Remove the containers that do not run and pass: their ids, and bytes of their files.

    One that is started meanwhile stays, as does one that another command holds on to.
    """
    from runner.containers.remove import remove
    from runner.containers.rootfs import held
    from tierce.usage import container_size

    gone, freed = [], 0
    for found in records.all():
        if found.state.status not in ("created", "exited") or found.state.attended or not chosen(found):
            continue
        with suppress(Conflict, ContainerNotFound), held(records, found.id) as record:
            if not record.state.is_running:
                size = container_size(records.store, record)
                remove(records, record, volumes=False)
                gone.append(record.id)
                freed += size
    return gone, freed


def prune_volumes(records: Records, volumes: Volumes, chosen: Callable[[Volume], bool]) -> tuple[list[str], int]:
    """Remove the volumes that pass and that no container names: their names, and bytes of their files."""
    from store.disk_usage import content_size
    from tierce.containers import volume_users

    users = volume_users(records)
    gone, freed = [], 0
    for volume in volumes.all():
        if not chosen(volume):
            continue
        size = content_size(volume.path / "_data")
        with suppress(VolumeInUse, VolumeNotFound):
            volumes.remove(volume.name, users.get(volume.name, ()))
            gone.append(volume.name)
            freed += size
    return gone, freed
