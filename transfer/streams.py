"""Blobs in motion: blocks that verify themselves, at the speed of the hash.

The hash of a large blob runs in a thread of its own (OpenSSL lets go of the interpreter
lock), so that reading and writing go on meanwhile. Memory is a fixed ring of blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Self

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import DigestMismatch, SizeMismatch

if TYPE_CHECKING:
    from hashlib import _Hash
    from types import TracebackType

BLOCK_SIZE: Final = 1 << 20
_RING: Final = 3

ReadInto = Callable[[memoryview], int]
"""Fills a buffer with what comes next and says how much; 0 at the end."""


class VerifiedBlocks:
    """Iterates ``descriptor``'s blob as read by ``read_into``; a context manager.

    Reads at most one byte more than ``descriptor.size``. A block is valid until the next
    one is asked for. Raises SizeMismatch, DigestMismatch at the end, and nothing of an
    iteration that raised may be kept.
    """

    def __init__(self, read_into: ReadInto, descriptor: Descriptor) -> None:
        self._read_into = read_into
        self._descriptor = descriptor
        self._hash: HashThread | None = None

    def __enter__(self) -> Iterator[memoryview]:
        if self._descriptor.size <= BLOCK_SIZE:
            return self._small()
        self._hash = HashThread(self._descriptor.digest.hasher())
        return self._large(self._hash)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._hash:
            self._hash.close()

    def _small(self) -> Iterator[memoryview]:
        size = self._descriptor.size
        view = memoryview(bytearray(size + 1))
        filled = 0
        while count := self._read_into(view[filled:]):
            filled += count
            self._check_room(filled)
        hasher = self._descriptor.digest.hasher()
        hasher.update(view[:filled])
        self._check_end(filled, Digest.from_hash(hasher))
        if filled:
            yield view[:filled]

    def _large(self, hashing: HashThread) -> Iterator[memoryview]:
        ring = [memoryview(bytearray(BLOCK_SIZE)) for _ in range(_RING)]
        hashing.allow(_RING)
        done = turn = 0
        while True:
            buffer = ring[turn % _RING]
            hashing.wait_for_room()
            count = self._read_into(buffer[: self._descriptor.size - done + 1])
            if not count:
                break
            done += count
            self._check_room(done)
            hashing.feed(buffer[:count])
            yield buffer[:count]
            turn += 1
        self._check_end(done, Digest.from_hash(hashing.finish()))

    def _check_room(self, seen: int) -> None:
        if seen > self._descriptor.size:
            raise SizeMismatch(self._descriptor.size, seen, what=f"blob {self._descriptor.digest}")

    def _check_end(self, seen: int, actual: Digest) -> None:
        if seen != self._descriptor.size:
            raise SizeMismatch(self._descriptor.size, seen, what=f"blob {self._descriptor.digest}")
        if actual != self._descriptor.digest:
            raise DigestMismatch(self._descriptor.digest, actual, what="blob")


class HashThread:
    """Hashes buffers in the order given; a buffer may be refilled once there is room again."""

    def __init__(self, hasher: _Hash) -> None:
        self._hasher = hasher
        self._todo: SimpleQueue[memoryview | None] = SimpleQueue()
        self._room = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (view := self._todo.get()) is not None:
            self._hasher.update(view)
            self._room.release()

    def allow(self, buffers: int) -> None:
        """How many buffers may wait for their hash."""
        self._room.release(buffers)

    def wait_for_room(self) -> None:
        self._room.acquire()

    def feed(self, view: memoryview) -> None:
        self._todo.put(view)

    def finish(self) -> _Hash:
        """The hash of everything fed."""
        self.close()
        return self._hasher

    def close(self) -> None:
        """End the thread. Idempotent."""
        if self._thread.is_alive():
            self._todo.put(None)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
