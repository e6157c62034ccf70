"""``create``: bring a container up to the point where its program would be executed."""

from __future__ import annotations

from runner.runtime.bundle import begin, read_bundle
from runner.runtime.call import Call


def run(call: Call) -> int:
    bundle = read_bundle(call)
    _, running = begin(call, bundle, detached=True, wait=True)
    running.close()
    return 0
