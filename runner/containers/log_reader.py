"""Reads what ``log`` wrote, through rotated files and while it grows; a block of lines at a time.

A hundred megabytes have a million lines: a block becomes one JSON array and is decoded by one
call. The last lines are looked for from the end, so that their number alone counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

from image.bare import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Final, TypeAlias, TypedDict

    class Line(TypedDict):
        """``log`` ends in a newline unless the rest of a long line is in the next; ``time`` is ``log.timestamp``'s."""

        log: str
        stream: str
        time: str

    Block: TypeAlias = list[Line]

_BLOCK: Final = 1 << 20
_FIRST_LOOK: Final = 1 << 16
_POLL_S: Final = 0.05


_CUT: Final[Line] = {"log": "", "stream": "stderr", "time": ""}
"""In the place of a line that a full disk cut."""


class LogReader:
    """Lines of a log, oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(
        self, *, tail: int | None = None, since: str = "", follow: Callable[[], bool] | None = None
    ) -> Iterator[Block]:
        """``tail`` is the number of last lines, None for all. ``follow`` says whether more may come.

        Blocks that end before ``since`` (a ``log.timestamp``) are left out; single lines are not.
        """
        with ExitStack() as held:
            files = self._open_all()
            for fd in files:
                held.callback(os.close, fd)
            own = os.dup(files[-1]) if files else -1  # what follows goes on where this ends
            start = _start_of_last(files, tail) if tail is not None else (0, 0)
            for number, fd in enumerate(files[start[0] :]):
                os.lseek(fd, start[1] if number == 0 else 0, os.SEEK_SET)
                yield from _blocks(fd, since)
            yield from self._follow(own, follow) if follow is not None else _closed(own)

    def _open_all(self) -> list[int]:
        """Every file, oldest first. A file that is rotated meanwhile is met again under its new name."""
        found: list[tuple[int, tuple[int, int]]] = []
        for number in count():
            try:
                fd = os.open(self._numbered(number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if number:
                    break
                continue
            identity = _identity(os.fstat(fd))
            if found and identity == found[0][1]:  # what came in between is newer: it is followed
                while len(found) > 1:
                    os.close(found.pop()[0])
                os.close(fd)
            else:
                found.append((fd, identity))
        return [fd for fd, _ in reversed(found)]

    def _numbered(self, number: int) -> str:
        return f"{self._path}.{number}" if number else str(self._path)

    def _follow(self, fd: int, more: Callable[[], bool]) -> Iterator[Block]:
        """What comes after the position of ``fd``, which is ours from here on."""
        try:
            while True:
                alive = more()  # asked before the last look, so that nothing is missed
                fd = fd if fd >= 0 else self._next(None)
                while fd >= 0:
                    yield from _blocks(fd, "")
                    following = self._next(fd)
                    if following < 0:
                        break
                    yield from _blocks(fd, "")  # its last lines came before it was rotated
                    os.close(fd)
                    fd = following
                if not alive:
                    return
                time.sleep(_POLL_S)
        finally:
            _closed(fd)

    def _next(self, fd: int | None) -> int:
        """The file that was begun after this one was rotated; the oldest after one that is gone; else -1."""
        own = _identity(os.fstat(fd)) if fd is not None else None
        while True:
            there = []
            for number in count():
                try:
                    there.append(_identity(os.stat(self._numbered(number))))
                except FileNotFoundError:
                    break
            if not there or there[0] == own:
                return -1
            wanted = there.index(own) - 1 if own in there else len(there) - 1
            try:
                found = os.open(self._numbered(wanted), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if _identity(os.fstat(found)) == there[wanted]:
                return found
            os.close(found)  # rotated between the two looks


def _closed(fd: int) -> tuple[()]:
    if fd >= 0:
        os.close(fd)
    return ()


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _blocks(fd: int, since: str) -> Iterator[Block]:
    """From its position on; that is then behind the last whole line."""
    rest = b""
    while data := os.read(fd, _BLOCK):
        whole, newline, rest = (rest + data).rpartition(b"\n")
        if newline and not _is_older(whole, since):
            yield _decode(whole)
    if rest:
        os.lseek(fd, -len(rest), os.SEEK_CUR)  # a line that is being written: its follower reads it whole


def _is_older(whole: bytes, since: str) -> bool:
    """Whether the last line, and so all, are from before."""
    return bool(since) and _decode(whole[whole.rfind(b"\n") + 1 :])[-1]["time"] < since


def _decode(whole: bytes) -> Block:
    """Lines without the last newline. A newline is nowhere else in them: in text it is escaped."""
    try:
        found = loads(b"[" + whole.replace(b"\n", b",") + b"]")
        if all(map(_is_line, found)):
            return list(found)
    except ValueError:
        pass
    return [_decode_one(line) for line in whole.split(b"\n")]


def _is_line(found: object) -> bool:
    return type(found) is dict and found.keys() >= _CUT.keys()


def _decode_one(line: bytes) -> Line:
    try:
        found = loads(line)
    except ValueError:
        return _CUT
    if not _is_line(found):
        return _CUT
    return {"log": str(found["log"]), "stream": str(found["stream"]), "time": str(found["time"])}


# --- the last lines -------------------------------------------------------------------------


def _start_of_last(files: list[int], wanted: int) -> tuple[int, int]:
    """Where the last lines of the container begin: the number of a file, and the position in it.

    Pieces of one long line count as one, and are in one file or several.
    """
    sizes = [os.fstat(fd).st_size for fd in files]
    if not wanted:
        return max(len(files) - 1, 0), sizes[-1] if sizes else 0
    size = _FIRST_LOOK
    while True:
        ends = _ends_of_lines(files, sizes, size)
        if len(ends) > wanted:
            return ends[-wanted - 1]
        if size >= sum(sizes):
            return 0, 0
        size *= 4


def _ends_of_lines(files: list[int], sizes: list[int], size: int) -> list[tuple[int, int]]:
    """Where lines of the container end in the last ``size`` bytes; the last one may want its newline."""
    found: list[tuple[int, int, bool]] = []
    for number in reversed(range(len(files))):
        own = min(size, sizes[number])
        ends = _ends_in(files[number], sizes[number] - own, own)
        found[:0] = [(number, position, is_whole) for position, is_whole in ends]
        size -= own
    return [(number, position) for number, position, is_whole in found[:-1] if is_whole] + [
        (number, position) for number, position, _ in found[-1:]
    ]


def _ends_in(fd: int, start: int, size: int) -> Iterator[tuple[int, bool]]:
    """Each end, and whether a newline of the container's is there. A first line that may have been cut by ``start`` is left out."""
    data = os.pread(fd, size, start)
    at = data.find(b"\n") + 1 if start else 0
    while (end := data.find(b"\n", at)) >= 0:
        line = _decode_one(data[at:end])
        at = end + 1
        yield start + at, line["log"].endswith("\n") or line is _CUT
