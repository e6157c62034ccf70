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
from queue import Queue
from threading import Event, Thread
from typing import Final

from store.diff import pack
from store.layers import LayerStore, mounted
from store.unpack import unpack

_QUEUE_SIZE: Final = 8


def export_tar(
    layers: LayerStore, directories: Sequence[str], write: Callable[[bytes], None], *, clamp_s: int | None = None
) -> None:
    """Give the merged tree of layer directories (top first) to ``write`` as an uncompressed tar.

    Raises as ``pack``, and KernelError.
    """
    with mounted(layers.overlay(directories)) as root:
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
    with mounted(layers.overlay(directories)) as root:
        outflow = _Outflow(root, clamp_s, owner)
        outflow.start()
        try:
            unpack(outflow.read, target, whiteouts="keep")
        finally:
            outflow.stop()


class _Stopped(Exception):
    """The reader went away."""


class _Outflow(Thread):
    """Packs a tree; the caller reads the tar."""

    def __init__(self, tree: int, clamp_s: int | None, owner: tuple[int, int] | None) -> None:
        super().__init__(name="export", daemon=True)
        self._tree = tree
        self._clamp_s = clamp_s
        self._owner = owner
        self._pieces: Queue[bytes | BaseException] = Queue(_QUEUE_SIZE)
        self._stopped = Event()
        self._ended = False

    def read(self, _size: int) -> bytes:
        """The next piece, ``b""`` at the end. Raises what stopped the other side."""
        if self._ended:
            return b""
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._ended = not piece
        return piece

    def stop(self) -> None:
        self._stopped.set()
        while self.is_alive():
            while not self._pieces.empty():
                self._pieces.get()
            self.join(0.01)

    def run(self) -> None:
        try:
            pack(self._tree, self._put, clamp_s=self._clamp_s, whiteouts=False, owner=self._owner)
            self._put(b"")
        except _Stopped:
            pass
        except BaseException as error:  # raised where the caller reads
            self._pieces.put(error)

    def _put(self, piece: bytes) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self._pieces.put(piece)
