"""A merged root filesystem to where no store is: a tar, or a directory.

    mounted stack ─ pack ─ tar                        caller
    mounted stack ─ pack ─╮                           thread
                          ╰─ unpack ─ directory       caller

What is between the two sides is a few pieces of half a MiB, whatever the tree's size. The
directory is written as an archive from a stranger would be: nothing leaves it through a link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from store.diff import pack
from store.layers import LayerStore
from store.piece_thread import PieceThread
from store.unpack import unpack


def export_tar(
    layers: LayerStore, directories: Sequence[str], write: Callable[[bytes], None], *, clamp_s: int | None = None
) -> None:
    """Give the merged tree of layer directories (top first) to ``write`` as an uncompressed tar.

    Raises as ``pack``, and KernelError.
    """
    with layers.trees.opened(directories) as root:
        pack(root, write, clamp_s=clamp_s, whiteouts=False)


def export_directory(
    layers: LayerStore,
    directories: Sequence[str],
    target: Path,
    *,
    clamp_s: int | None = None,
    owner: tuple[int, int] | None = None,
) -> None:
    """Put the merged tree into ``target``, which exists; what else is there stays.

    Raises as ``pack`` and ``unpack``, and KernelError.
    """
    with layers.trees.opened(directories) as root:
        outflow = _Outflow(root, clamp_s, owner)
        outflow.start()
        try:
            unpack(outflow.read, target, whiteouts="keep")
        finally:
            outflow.stop()


class _Outflow(PieceThread):
    """Packs a tree; the caller reads the tar."""

    def __init__(self, tree: int, clamp_s: int | None, owner: tuple[int, int] | None) -> None:
        super().__init__("export")
        self._tree = tree
        self._clamp_s = clamp_s
        self._owner = owner

    def _make(self) -> None:
        pack(self._tree, self._give, clamp_s=self._clamp_s, whiteouts=False, owner=self._owner)
