"""The end of a container that does not run: its record, its files, its anonymous volumes."""

from __future__ import annotations

from contextlib import suppress

from image.errors import TierceError
from runner.containers.records import Record, Records


def remove(records: Records, record: Record, *, volumes: bool) -> None:
    """Forget it. With ``volumes`` those without a name go too, unless another container uses them."""
    records.forget(record)
    names = [request.source for request in record.made.options.mounts if request.kind == "volume"]
    if not (volumes and names):
        return
    from runner.volumes.volumes import Volumes

    known = Volumes(records.store.root)
    wanted = {request.source for other in records.all() for request in other.made.options.mounts}
    for name in names:
        with suppress(TierceError):
            if name not in wanted and known.get(name).anonymous:
                known.remove(name)
