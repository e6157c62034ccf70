"""Docker's json-file log: written by a monitor, read by ``log_reader``, also while it grows.

A line is ``{"log":"text\\n","stream":"stdout","time":"..."}``. A line of the container that is
longer than 16 KiB becomes several, of which only the last ends in a newline. ``local`` is the
same with a limit of its own; ``none`` writes nothing. Imports only what a bare interpreter has.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 16 << 10
_SPARED = 512 << 10
"""Bytes of a disk that no log takes: the database must say how containers end."""
_BACKSLASH = 0x5C
_ESCAPES = {_BACKSLASH: b"\\\\", 0x22: b'\\"', 0x09: b"\\t", 0x0D: b"\\r"}
_PLAIN = bytes(range(32, 127)).translate(None, b'"\\') + b"\n"


class LogWriter:
    """Appends to one file, and rotates it. A disk that is full but for a little loses lines, never the container."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_size: int = 0,
        max_file: int = 1,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = os.fspath(path)
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
        data = b"".join(_encode(piece, tail) for piece in pieces)
        while data:
            if self._max_size and self._size >= self._max_size:
                self._rotate()
            end = self._end_of_file(data)
            self._append(data[:end])
            data = data[end:]

    def _end_of_file(self, data: bytes) -> int:
        """How much of ``data`` goes into this file: up to the line that reaches the limit, and all of that."""
        room = self._max_size - self._size
        return data.find(b"\n", room - 1) + 1 if self._max_size and len(data) > room else len(data)

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            disk = os.fstatvfs(self._fd)
            if disk.f_blocks and disk.f_bfree * disk.f_frsize < _SPARED + len(data):
                return
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            self._undo()
            return
        self._size += written

    def _undo(self) -> None:
        try:  # noqa: SIM105  # no contextlib here
            os.ftruncate(self._fd, self._size)  # half a line would break its reader
        except OSError:
            pass

    def _rotate(self) -> None:
        os.close(self._fd)
        try:  # noqa: SIM105
            self._make_room()
        except OSError:
            pass
        self._open()

    def _make_room(self) -> None:
        for number in range(self._max_file - 1, 0, -1):
            older = self._path if number == 1 else f"{self._path}.{number - 1}"
            if os.path.exists(older):
                os.rename(older, f"{self._path}.{number}")
        if self._max_file == 1:
            os.unlink(self._path)  # a follower keeps its descriptor, and sees a new file


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
    """Lines, and perhaps a last piece of one, as lines of JSON; all of them at once, without a look at each."""
    special = set(piece.translate(None, _PLAIN))
    if special and max(special) > 127:
        piece = _valid(piece)
    for byte in sorted(special, key=lambda byte: byte != _BACKSLASH):  # it comes first: the others are made of it
        if byte < 128:
            piece = piece.replace(bytes([byte]), _ESCAPES.get(byte) or b"\\u%04x" % byte)
    ended = piece.endswith(b"\n")
    body = piece[:-1] if ended else piece
    lines = body.replace(b"\n", b"\\n" + tail + b'{"log":"')
    return b'{"log":"' + lines + (b"\\n" if ended else b"") + tail


def _valid(piece: bytes) -> bytes:
    """What is no UTF-8 becomes U+FFFD."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return piece.decode("utf-8", "replace").encode()
    return piece


def timestamp(now_ns: int) -> str:
    """RFC 3339 with nanoseconds, as docker writes them."""
    seconds, fraction = divmod(now_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}Z"
