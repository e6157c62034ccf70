"""A stream of bytes made in a thread of its own and read by the caller.

What is between the two sides is a few pieces, whatever the stream's length.
"""

from __future__ import annotations

from abc import abstractmethod
from queue import Queue
from threading import Event, Thread
from typing import Final

QUEUE_SIZE: Final = 8  # pieces


class _Stopped(Exception):
    """The reader went away."""


class PieceThread(Thread):
    """A subclass's ``_make`` gives the pieces. Start it, read it, and always stop it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._pieces: Queue[bytes | BaseException] = Queue(QUEUE_SIZE)
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

    def finish(self) -> None:
        """Let the stream be made to its end, unread."""
        while self.read(0):
            pass

    def stop(self) -> None:
        """End the thread, wherever it is, and wait until it has ended."""
        self._stopped.set()
        while self.is_alive():
            while not self._pieces.empty():
                self._pieces.get()
            self.join(0.01)

    def run(self) -> None:
        try:
            self._make()
            self._give(b"")
        except _Stopped:
            pass
        except BaseException as error:  # raised where the caller reads
            self._pieces.put(error)

    @abstractmethod
    def _make(self) -> None:
        """Call ``_give`` with each piece in turn."""

    def _give(self, piece: bytes) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self._pieces.put(piece)
