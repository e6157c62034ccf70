"""Clean up after processes that were killed: the next command does it, in passing."""

from __future__ import annotations

from image.paths import Path
from runner.containers.groups import remembered
from runner.network.lingering import is_abandoned
from runner.runtime import cgroup, state
from runner.runtime.privileges import Cgroups


def is_due(root: Path) -> bool:
    """Whether there is something to clean up, at a glance."""
    return bool(state.stale(root)) or (not state.live(root) and is_abandoned(root))


def sweep(root: Path, cgroups: Cgroups) -> tuple[str, ...]:
    """Remove what containers of killed processes have left; their ids.

    With nothing to do this is one look into a directory. Containers that live are not touched,
    and a container whose launcher has just been killed counts as living until its watcher has
    killed it too.
    """
    if not is_due(root):
        return ()
    from store.directories import discard_tree

    with state.locked(root):
        found = state.stale(root)
        for directory in found:
            if cgroup.leftovers(cgroups, directory.name, remembered(directory)).remove():
                discard_tree(directory)  # else the next command tries again
    from runner.network.bridge import settle
    from runner.network.namespace import where_bridges_are

    where_bridges_are(root, lambda: settle(root))
    return tuple(directory.name for directory in found)
