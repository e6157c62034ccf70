"""How much of a container's life its launcher stays for."""

from __future__ import annotations

from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """By default the container starts at once and ends with its launcher.

    ``detached``: it outlives the launcher, as its watcher knows too. ``fifo_directory``: before exec it waits until
    somebody reads ``exec.fifo`` in there. ``keyring``: a session keyring of its own.
    ``pivot``: change the root by pivot_root, else by a move and chroot (for a root on ramfs).
    ``every_group``: see ``cgroup.create``. ``hooks`` and ``listener``: see ``Running.begin``.
    """

    detached: bool = False
    fifo_directory: str = ""
    keyring: bool = True
    pivot: bool = True
    every_group: bool = False
    hooks: Callable[[int], bytes] | None = None
    listener: Callable[[int, int], None] | None = None
