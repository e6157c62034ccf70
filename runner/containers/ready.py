"""The process of a container, started before it is known what the container will be.

An interpreter takes as long to start as a command to find out what to run; here the two are side by
side. Only for root, whose user namespace is the one that the container is made from anyhow.
"""

from __future__ import annotations

import os

from image.errors import NotPermitted
from runner.runtime import state
from runner.runtime.spawn import Stdio, Watcher, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from runner.runtime.state import Lease

_ID_BYTES = 32


class Ready:
    """A container's id, lease and process. As a context manager they end with the block, unless ``start`` took them."""

    def __init__(self, environ: Mapping[str, str], stdio: Stdio) -> None:
        """Raises NotPermitted."""
        self.container_id = os.urandom(_ID_BYTES).hex()
        root = state.runtime_directory(environ, os.geteuid())
        self.lease: Lease = state.acquire(root, self.container_id)
        try:
            self.watcher: Watcher = spawn(stdio, self.lease.fd)
        except BaseException:
            self.lease.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watcher.__exit__(kind, error, trace)
        self.lease.release()


def watcher_ahead(*, interactive: bool) -> Watcher | None:
    """A process to enter a container with. None for an ordinary user, on a terminal, and where there can be none."""
    stdio = own_stdio(interactive=interactive)
    if stdio is None or os.geteuid() != 0:
        return None
    try:
        return spawn(stdio)
    except NotPermitted:
        return None  # who tries again will say why


def own_stdio(*, interactive: bool) -> Stdio | None:
    """This process's own descriptors, for a process that may have them; None where one of them is a terminal."""
    used = (0, 1, 2) if interactive else (1, 2)
    if any(os.isatty(fd) for fd in used):
        return None
    return Stdio(0 if interactive else None, 1, 2)
