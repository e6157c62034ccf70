"""What a container's monitor and its clients say to each other: frames over a unix socket.

A frame is a letter, the size of its body in four bytes, and the body. A client begins with
ATTACH or WATCH, the command that wants a container with BEGIN; only the monitor sends STARTED, FAILED, OUT, ERR and ENDED.

The socket is in the runtime directory and only its owner may connect. Imports only what a bare
interpreter has, but for those who make or find it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

BEGIN, ATTACH, WATCH = b"B", b"A", b"Q"
INPUT, RESIZE, SIGNAL, STOP = b"I", b"W", b"K", b"T"
STARTED, FAILED, OUT, ERR, ENDED = b"S", b"X", b"1", b"2", b"E"
CHUNK = 1 << 16
_NAME = "attach"


def frame(kind: bytes, body: bytes = b"") -> bytes:
    return kind + len(body).to_bytes(4, "little") + body


class Frames:
    """Takes bytes as they come, gives whole frames. ``rest`` is what has come of the next one."""

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self.rest += data
        at = 0
        while len(self.rest) - at >= 5:
            end = at + 5 + int.from_bytes(self.rest[at + 1 : at + 5], "little")
            if len(self.rest) < end:
                break
            yield self.rest[at : at + 1], self.rest[at + 5 : end]
            at = end
        self.rest = self.rest[at:]


def _through(directory: Path, name: str = _NAME) -> tuple[int, str]:
    """A socket's path has 107 bytes at most, so it is reached through a descriptor."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return fd, f"/proc/self/fd/{fd}/{name}"


def listen(directory: Path) -> socket.socket:
    """The monitor's end."""
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd, path = _through(directory)
    try:
        (directory / _NAME).unlink(missing_ok=True)
        made.bind(path)
        os.chmod(directory / _NAME, 0o600)
        made.listen(64)
        made.setblocking(False)
    finally:
        os.close(fd)
    return made


def connect(directory: Path) -> socket.socket:
    """A client's end. Raises ContainerNotFound when nobody listens."""
    import socket

    from image.errors import ContainerNotFound

    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fd, path = _through(directory)
    except OSError as error:
        made.close()
        raise ContainerNotFound("the container is not running") from error
    try:
        made.connect(path)
    except OSError as error:
        made.close()
        raise ContainerNotFound("the container is not running") from error
    finally:
        os.close(fd)
    return made
