"""Docker's json-file log: written by a monitor, read by ``logs``, also while it grows.

A line is ``{"log":"text\\n","stream":"stdout","time":"..."}``. A line of the container that is
longer than 16 KiB becomes several, of which only the last ends in a newline. ``local`` is the
same with a limit of its own; ``none`` writes nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_LONGEST: Final = 16 << 10
_PLAIN: Final = bytes(range(32, 127)).translate(None, b'"\\') + b"\n\t"
_POLL_S: Final = 0.05


class LogWriter:
    """Appends to one file, and rotates it. A full disk loses lines, never the container."""

    def __init__(
        self, path: Path, *, max_size: int = 0, max_file: int = 1, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._clock = clock
        self._rest = {b"stdout": b"", b"stderr": b""}
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: bytes, data: bytes) -> None:
        """What the container has just written to ``stdout`` or ``stderr``."""
        data = self._rest[stream] + data
        cut = data.rfind(b"\n") + 1
        whole, rest = data[:cut], data[cut:]
        pieces = [whole] if whole else []
        if len(whole) > _LONGEST:
            pieces = _cut(whole)
        while len(rest) >= _LONGEST:
            pieces.append(rest[:_LONGEST])
            rest = rest[_LONGEST:]
        self._rest[stream] = rest
        if pieces:
            self._put(stream, pieces)

    def flush(self) -> None:
        """The last words, without a newline."""
        for stream, rest in self._rest.items():
            if rest:
                self._rest[stream] = b""
                self._put(stream, [rest])

    def close(self) -> None:
        self.flush()
        os.close(self._fd)

    def _put(self, stream: bytes, pieces: list[bytes]) -> None:
        tail = b'","stream":"' + stream + b'","time":"' + timestamp(self._clock()).encode() + b'"}\n'
        if self._max_size:
            for piece in pieces:
                for line in piece.splitlines(keepends=True) if b"\r" not in piece else _lines(piece):
                    self._append(_encode(line, tail))
        else:
            self._append(b"".join(_encode(piece, tail) for piece in pieces))

    def _append(self, data: bytes) -> None:
        if self._max_size and self._size >= self._max_size:
            self._rotate()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)  # half a line would break its reader
            return
        self._size += written

    def _rotate(self) -> None:
        os.close(self._fd)
        with suppress(OSError):
            for number in range(self._max_file - 1, 0, -1):
                older = self._path if number == 1 else Path(f"{self._path}.{number - 1}")
                with suppress(FileNotFoundError):
                    os.rename(older, f"{self._path}.{number}")
            if self._max_file == 1:
                os.unlink(self._path)  # a follower keeps its descriptor, and sees a new file
        self._open()


def _lines(data: bytes) -> list[bytes]:
    """Only newlines end a line."""
    return [line + b"\n" for line in data[:-1].split(b"\n")] if data.endswith(b"\n") else [data]


def _cut(whole: bytes) -> list[bytes]:
    """Runs of lines that are short enough, and pieces of those that are not."""
    lines = _lines(whole)
    if max(map(len, lines)) <= _LONGEST:
        return [whole]
    return [line[at : at + _LONGEST] for line in lines for at in range(0, len(line), _LONGEST)]


def _encode(piece: bytes, tail: bytes) -> bytes:
    """Whole lines at once where nothing needs escaping, which is the usual case."""
    if piece.translate(None, _PLAIN):
        return _encode_text(piece, tail)
    piece = piece.replace(b"\t", b"\\t")
    ended = piece.endswith(b"\n")
    body = piece[:-1] if ended else piece
    lines = body.replace(b"\n", b"\\n" + tail + b'{"log":"')
    return b'{"log":"' + lines + (b"\\n" if ended else b"") + tail


def _encode_text(piece: bytes, tail: bytes) -> bytes:
    texts = (json.dumps(line.decode("utf-8", "replace"), ensure_ascii=False) for line in _lines(piece))
    return b"".join(b'{"log":' + text.encode()[:-1] + tail for text in texts)


def timestamp(now_ns: int) -> str:
    """RFC 3339 with nanoseconds, as docker writes them."""
    seconds, fraction = divmod(now_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}Z"


# --- reading --------------------------------------------------------------------------------


class LogReader:
    """Lines of a log as ``(stream, time, text)``, oldest first, through its rotated files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(
        self, *, tail: int | None = None, follow: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, str, str]]:
        """``tail`` is the number of last lines, None for all. ``follow`` says whether more may come."""
        older = [path for number in range(99, 0, -1) if (path := Path(f"{self._path}.{number}")).exists()]
        fd = self._open()
        try:
            data = b"".join(path.read_bytes() for path in older) if tail != 0 else b""
            lines: Iterator[bytes] = _split(data, fd)
            if tail is not None:
                lines = iter(_last(lines, tail))
            yield from map(_parse, lines)
            if follow is not None:
                yield from self._follow(fd, follow)
        finally:
            if fd >= 0:
                os.close(fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def _follow(self, fd: int, more: Callable[[], bool]) -> Iterator[tuple[str, str, str]]:
        rest = b""
        own = fd
        try:
            while True:
                alive = more()  # asked before the last look, so that nothing is missed
                if fd < 0:
                    fd = self._open()
                data = os.read(fd, 1 << 20) if fd >= 0 else b""
                if data:
                    *lines, rest = (rest + data).split(b"\n")
                    yield from map(_parse, lines)
                    continue
                if fd >= 0 and self._was_rotated(fd):
                    if fd != own:
                        os.close(fd)
                    fd, rest = -1, b""
                    continue
                if not alive:
                    return
                time.sleep(_POLL_S)
        finally:
            if fd >= 0 and fd != own:
                os.close(fd)

    def _was_rotated(self, fd: int) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(fd).st_ino and not os.read(fd, 0)
        except FileNotFoundError:
            return False


def _split(first: bytes, fd: int) -> Iterator[bytes]:
    *lines, rest = first.split(b"\n")
    yield from lines
    while fd >= 0 and (data := os.read(fd, 1 << 20)):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest and fd >= 0:
        os.lseek(fd, -len(rest), os.SEEK_CUR)  # a line that is being written: its follower reads it whole


def _last(lines: Iterator[bytes], count: int) -> list[bytes]:
    """The last lines as the container wrote them: pieces of one long line count as one."""
    kept: list[list[bytes]] = []
    partial = False
    for line in lines:
        if partial and kept:
            kept[-1].append(line)
        else:
            kept.append([line])
            if len(kept) > max(count, 1):
                del kept[0]
        partial = b'\\n","stream"' not in line
    return [line for group in kept for line in group] if count else []


def _parse(line: bytes) -> tuple[str, str, str]:
    try:
        found = json.loads(line)
        return str(found["stream"]), str(found["time"]), str(found["log"])
    except (ValueError, KeyError, TypeError):
        return "stderr", "", ""  # a line that a full disk cut
