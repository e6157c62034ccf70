"""How each system call is answered: one file a group, one function a call.

A handler gets the call and gives its result: a value, a negative errno, None for the kernel to
go on with the call as it is, or ``ANSWERED`` when it has sent the answer itself. An OSError
that it raises is the call's error.
"""

from __future__ import annotations

from collections.abc import Callable

from image.value import dataclass
from runner.owners.credentials import CredentialTable
from runner.owners.records import Records
from runner.owners.tracee import Paths
from runner.runtime.notify import Listener

ANSWERED = 1 << 40


@dataclass(frozen=True, slots=True)
class World:
    """What handlers work with."""

    listener: Listener
    records: Records
    credentials: CredentialTable
    paths: Paths


@dataclass(frozen=True, slots=True)
class Call:
    """One call that waits: of process ``pid``, with six arguments."""

    world: World
    cookie: int
    pid: int
    a: tuple[int, ...]

    def at(self, directory: int, address: int) -> bytes:
        """The path of the call as the supervisor must say it. Raises OSError."""
        return self.world.paths.at(self.pid, directory, address)


Handler = Callable[[Call], int | None]
