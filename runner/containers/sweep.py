"""Clean up after processes that were killed: the next command does it, in passing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

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
            if cgroup.leftovers(cgroups, directory.name, _cgroups_path(directory)).remove():
                discard_tree(directory)  # else the next command tries again
    if entered() is None:  # an ordinary user's containers have no bridge
        from runner.network.bridge import settle

        settle(root)
    return tuple(directory.name for directory in found)


_CGROUPS_PATH: Final = "cgroups-path"


def remember_cgroups(directory: Path, path: str) -> None:
    """Note in a container's directory where its groups are, when it is not the usual place."""
    if path:
        (directory / _CGROUPS_PATH).write_text(path)


def _cgroups_path(directory: Path) -> str:
    try:
        return (directory / _CGROUPS_PATH).read_text()
    except FileNotFoundError:
        return ""
