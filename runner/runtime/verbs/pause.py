"""``pause``: stop every process of a container where it is."""

from __future__ import annotations

from image.errors import Conflict
from runner.runtime import freezer
from runner.runtime.call import Call


def run(call: Call) -> int:
    found = call.container()
    status = found.status
    if status not in ("running", "created"):
        raise Conflict(f"cannot pause container {found.id}: it is {status}")
    freezer.freeze(found.groups)
    return 0
