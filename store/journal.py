"""What happened in a store, for whoever wants to know later or at once. No daemon keeps it.

    <root>/events/journal       the newest events, a line each
    <root>/events/journal.1     those before; the next full file takes its place

An event is one write to a file that is open for appending, which the kernel keeps whole and in order
among processes, so writers wait for nobody. Each line begins with a newline, so that one that a kill
has cut short spoils no other. Whoever fills the file renames it; what others write there at that
moment is read all the same. An event that can't be written is lost: it is no reason for a failure.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress

from image.bare import dumps, loads
from image.paths import Path
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Self

LIMIT: Final = 1 << 20
"""Bytes of one file: some thousands of events."""
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` is container, image, network or volume; ``id`` what it happened to; ``time_ns`` since 1970."""

    time_ns: int
    kind: str
    action: str
    id: str
    attributes: Mapping[str, str]


class Journal:
    """The events of the store at ``root``."""

    def __init__(self, root: Path, *, limit: int = LIMIT) -> None:
        self._path = root / "events" / "journal"
        self._limit = limit

    def write(self, kind: str, action: str, subject: str, attributes: Mapping[str, str]) -> None:
        """Never fails."""
        line = dumps([time.time_ns(), kind, action, subject, dict(attributes)], compact=True)
        with suppress(OSError):
            fd = self._open()
            try:
                os.write(fd, b"\n" + line.encode() + b"\n")
                if os.lseek(fd, 0, os.SEEK_CUR) >= self._limit:
                    self._rotate(fd)
            finally:
                os.close(fd)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            return os.open(self._path, flags, 0o600)

    def _rotate(self, fd: int) -> None:
        """By one process; another has done it, or does, when this one can't have the lock or the name is another file's."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(self._path)):
            os.rename(self._path, self._older)

    @property
    def _older(self) -> Path:
        return self._path.with_name("journal.1")

    def read(self, since_ns: int, *, follow: Callable[[], bool] | None = None) -> Iterator[Event]:
        """Events from ``since_ns`` on, by time; with ``follow`` those that come, as long as it says so."""
        with ExitStack() as held:
            tails = [held.enter_context(_Tail(path)) for path in (self._older, self._path)]
            if tails[0].is_same(tails[1]):  # it was renamed between our two looks
                tails[1].close()
                tails[1] = held.enter_context(_Tail(self._path))
            found = [event for tail in tails for event in tail.read()]
            yield from sorted((event for event in found if event.time_ns >= since_ns), key=lambda event: event.time_ns)
            while follow is not None:
                more = follow()  # asked before the last look, so that nothing is missed
                for tail in tails:
                    yield from (event for event in tail.read() if event.time_ns >= since_ns)
                if not more:
                    return
                if tails[-1].is_at(self._path):
                    time.sleep(_POLL_S)
                else:
                    tails = self._next(tails, held)

    def _next(self, tails: list[_Tail], held: ExitStack) -> list[_Tail]:
        """After a rename: the file that was followed, whose last lines may still come, then those that began after it."""
        newer = [held.enter_context(_Tail(path)) for path in (self._older, self._path)]
        if any(newer[0].is_same(tail) for tail in tails):
            newer.pop(0).close()
        for tail in tails[:-1]:
            tail.close()
        return [tails[-1], *newer]


class _Tail:
    """A file that grows, or that is not there."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self._rest = b""
        with suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def is_same(self, other: _Tail) -> bool:
        return min(self._fd, other._fd) >= 0 and os.path.samestat(os.fstat(self._fd), os.fstat(other._fd))

    def is_at(self, path: Path) -> bool:
        """Whether this is the file of that name; also when neither is there."""
        try:
            there = os.stat(path)
        except OSError:
            return True
        return self._fd >= 0 and os.path.samestat(os.fstat(self._fd), there)

    def read(self) -> Iterator[Event]:
        """What has come since the last time."""
        while self._fd >= 0 and (data := os.read(self._fd, 1 << 16)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from (event for line in lines if (event := _event(line)) is not None)


def _event(line: bytes) -> Event | None:
    """None for an empty line, and for one that was cut."""
    try:
        moment, kind, action, subject, attributes = loads(line)
        return Event(int(moment), str(kind), str(action), str(subject), {str(k): str(v) for k, v in attributes.items()})
    except (ValueError, TypeError, AttributeError):
        return None
