"""``create``: bring a container up to the point where its program would be executed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.runtime.call import Call


def run(call: Call) -> int:
    with call.spawn(detached=True) as watcher:  # before the imports below: both take as long
        from runner.runtime.bundle import begin, read_bundle

        _, running = begin(call, read_bundle(call), watcher, wait=True)
        running.close()
    return 0
