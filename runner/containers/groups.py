"""Where a container's control groups are: in the usual place, where the user wants them, or where they may be.

An ordinary user's container has groups only when something needs one, in a part of the tree that
was delegated (``runner.runtime.delegation``). That place is noted in the container's directory.
"""

from __future__ import annotations

from collections.abc import Sequence

from image.paths import Path
from runner.runtime.privileges import Privileges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_NOTE: Final = "cgroups-path"


def remember(directory: Path, path: str) -> None:
    """Note in a container's directory where its groups are, when it is not the usual place."""
    if path:
        (directory / _NOTE).write_text(path)


def remembered(directory: Path) -> str:
    """Relative to each hierarchy; "" for the usual place."""
    try:
        return (directory / _NOTE).read_text()
    except FileNotFoundError:
        return ""


def choose(privileges: Privileges, directory: Path, container_id: str, processes: Sequence[int], path: str = "") -> str:
    """Where groups of the container can be made, noted. ``path`` is what the user wants.

    ``processes`` will be moved there. Raises NotPermitted, saying what would help.
    """
    chosen = path or remembered(directory)
    if not chosen and not privileges.initial_user_namespace:
        from runner.runtime.delegation import place_for

        uid = privileges.rootless.outer_uid if privileges.rootless else privileges.uid
        chosen = place_for(privileges.cgroups, container_id, processes, uid)
    remember(directory, chosen)
    return chosen
