"""``resume``: let a paused container go on."""

from __future__ import annotations

from image.errors import Conflict
from runner.runtime import freezer
from runner.runtime.call import Call


def run(call: Call) -> int:
    found = call.container()
    status = found.status
    if status not in ("paused",):
        raise Conflict(f"cannot resume container {found.id}: it is {status}")
    freezer.thaw(found.groups)
    return 0
