"""Clean up after processes that were killed: the next command does it, in passing."""

from __future__ import annotations

from pathlib import Path

from runner.containers.groups import remembered
from runner.runtime import cgroup, state
from runner.runtime.privileges import Cgroups
from runner.runtime.user_namespace import entered


def sweep(root: Path, cgroups: Cgroups) -> tuple[str, ...]:
    """Remove what containers of killed processes have left; their ids.

    With nothing to do this is one look into a directory. Containers that live are not touched,
    and a container whose launcher has just been killed counts as living until its watcher has
    killed it too.
    """
    if not state.stale(root):
        return ()
    from store.directories import discard_tree

    with state.locked(root):
        found = state.stale(root)
        for directory in found:
            if cgroup.leftovers(cgroups, directory.name, remembered(directory)).remove():
                discard_tree(directory)  # else the next command tries again
    if entered() is None:  # an ordinary user's containers have no bridge
        from runner.network.bridge import settle

        settle(root)
    return tuple(directory.name for directory in found)
