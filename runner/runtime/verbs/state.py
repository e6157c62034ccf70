"""``state``: what a container is, as JSON."""

from __future__ import annotations

import json

from runner.runtime.call import Call, say
from runner.runtime.record import Record


def run(call: Call) -> int:
    say(1, json.dumps(describe(call.container()), indent=2) + "\n")
    return 0


def describe(found: Record) -> dict[str, object]:
    """runc's document: the runtime-spec's state, and rootfs, created and owner."""
    status = found.status
    return {
        "ociVersion": found.oci_version,
        "id": found.id,
        "pid": 0 if status == "stopped" else found.pid,
        "status": status,
        "bundle": found.bundle,
        "rootfs": found.rootfs,
        "created": found.created,
        **({"annotations": dict(found.annotations)} if found.annotations else {}),
        "owner": found.owner,
    }
