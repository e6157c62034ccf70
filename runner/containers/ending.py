"""How a container has ended, as a file beside its log: written before anything that takes longer.

    <store>/containers/ID/ending

Whoever finds a container that nobody watches any more believes this file; while it is blank the
monitor was killed before the container's end. It has its room from the start, so a full disk
does not lose it. Imports only what a bare interpreter has.
"""

from __future__ import annotations

import os

from image.value import dataclass

_NAME = "ending"
_SIZE = 64


@dataclass(frozen=True, slots=True)
class Ending:
    """``finished_s`` in seconds since 1970; ``stopped`` says that a user ended it."""

    code: int
    finished_s: float
    stopped: bool = False


def prepare(store_root: str | os.PathLike[str], container_id: str) -> None:
    """Blank, before a life begins. Raises OSError."""
    _write(_path(store_root, container_id), b"")


def write(store_root: str, container_id: str, ending: Ending) -> None:
    """By one call into room that is there. A file that has gone meanwhile is nobody's loss."""
    text = b"%d %.6f %d" % (ending.code, ending.finished_s, ending.stopped)
    try:  # noqa: SIM105  # no contextlib here
        _write(_path(store_root, container_id), text, os.O_WRONLY)
    except OSError:
        pass


def read(store_root: str | os.PathLike[str], container_id: str) -> Ending | None:
    """None when there is none."""
    try:
        with open(_path(store_root, container_id)) as file:
            code, finished_s, stopped = file.read().split()
        return Ending(int(code), float(finished_s), stopped == "1")
    except (OSError, ValueError):
        return None


def _write(path: str, text: bytes, flags: int = os.O_WRONLY | os.O_CREAT) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, text.ljust(_SIZE), 0)
    finally:
        os.close(fd)


def _path(store_root: str | os.PathLike[str], container_id: str) -> str:
    return f"{os.fspath(store_root)}/containers/{container_id}/{_NAME}"
