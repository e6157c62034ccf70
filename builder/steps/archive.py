"""ADD of a local archive: told by its content, unpacked beside the layer, then placed like files.

Spec: dockerfile.md 1.5, row "ADD archive".
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from builder.dockerfile.ignore import NOTHING
from builder.entries import Source, Stop
from builder.steps.place import Destination, Placing
from builder.steps.tree import Owner
from builder.tree import Tree
from image.errors import InvalidArchive
from store.compression import inflated
from store.tar_reader import Reader
from store.unpack import unpack

_BLOCK: Final = 1 << 18


def is_archive(tree: Tree, source: Source) -> bool:
    """Whether a file starts like a tar, maybe compressed."""
    with _uncompressed(tree, source) as read:
        try:
            return Reader(read).next() is not None
        except InvalidArchive:
            return False


def place_archive(
    tree: Tree, source: Source, destination: Destination, target: str, scratch: Path, owner: Owner | None, stop: Stop
) -> None:
    """Unpack into the existing directory ``target`` of ``destination``, by way of the empty ``scratch``.

    Raises InvalidArchive, StorageError, Cancelled.
    """
    scratch.mkdir(mode=0o700)
    try:
        with _uncompressed(tree, source) as read:
            unpack(_interruptible(read, stop), scratch, whiteouts="keep")
        fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with Placing(Tree(fd), destination, owner, None, stop=stop) as placing:
                placing.contents("", target, NOTHING)
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _interruptible(read: Callable[[int], bytes], stop: Stop) -> Callable[[int], bytes]:
    def read_or_stop(size: int) -> bytes:
        stop()
        return read(size)

    return read_or_stop


@contextmanager
def _uncompressed(tree: Tree, source: Source) -> Iterator[Callable[[int], bytes]]:
    """A reader of the tar in a file, in pieces of at most what is asked for."""
    with tree.descent() as descent:
        fd = descent.open(source.path)
    try:
        yield inflated(iter(lambda: os.read(fd, _BLOCK), b""))
    finally:
        os.close(fd)
