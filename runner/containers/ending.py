"""How a container has ended, as a file beside its log: written before anything that takes longer.

    <store>/containers/ID/ending

Whoever finds a container that nobody watches any more believes this file; without it the monitor
was killed before the container's end. Imports only what a bare interpreter has.
"""

from __future__ import annotations

import os

from image.value import dataclass

_NAME = "ending"


@dataclass(frozen=True, slots=True)
class Ending:
    """``finished_s`` in seconds since 1970; ``stopped`` says that a user ended it."""

    code: int
    finished_s: float
    stopped: bool = False


def write(store_root: str, container_id: str, ending: Ending) -> None:
    """At once or not at all. A full disk loses it, which matters only if the monitor is killed just then."""
    path = _path(store_root, container_id)
    try:
        with open(f"{path}.new", "w") as file:
            file.write(f"{ending.code} {ending.finished_s!r} {int(ending.stopped)}")
        os.rename(f"{path}.new", path)
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


def forget(store_root: str | os.PathLike[str], container_id: str) -> None:
    """Before another life begins. Raises OSError."""
    try:  # noqa: SIM105  # no contextlib here
        os.unlink(_path(store_root, container_id))
    except FileNotFoundError:
        pass


def _path(store_root: str | os.PathLike[str], container_id: str) -> str:
    return f"{os.fspath(store_root)}/containers/{container_id}/{_NAME}"
