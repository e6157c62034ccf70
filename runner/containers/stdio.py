"""What a process in a container has as its standard input and output: the user's own, pipes of ours, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from runner.runtime.spawn import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.attach import UserStdio
    from runner.containers.options import RunOptions
    from runner.containers.relay import Relay


class _Given:
    """What the container gets, and which of it are our copies."""

    def __init__(self) -> None:
        self.container = Stdio()
        self._copies: list[int] = []

    def pipe(self, *, reads: bool) -> tuple[int, int]:
        """The container's end, then ours."""
        read, write = os.pipe2(os.O_CLOEXEC)
        self._copies.append(read if reads else write)
        return (read, write) if reads else (write, read)

    def close_container_side(self) -> None:
        """Once the container has its own, so that the ends of its output are seen."""
        for fd in self._copies:
            os.close(fd)
        self._copies = []


@contextmanager
def container_stdio(options: RunOptions, user: UserStdio, relay: Relay) -> Iterator[_Given]:
    """Pipes for terminals, the user's own descriptors otherwise; nothing at all with ``-t``."""
    given = _Given()
    ours: list[int] = []
    stdin: int | None = None
    outputs = [user.stdout, user.stderr]
    if not options.tty:
        if options.interactive and os.isatty(user.stdin):
            stdin, writer = given.pipe(reads=True)
            relay.set_input(user.stdin, writer, close_at_end=True)
        elif options.interactive:
            stdin = user.stdin
        for position, fd in enumerate(outputs):
            if os.isatty(fd):
                outputs[position], reader = given.pipe(reads=False)
                relay.add_output(reader, fd)
                ours.append(reader)
        given.container = Stdio(stdin, outputs[0], outputs[1])
    try:
        yield given
    finally:
        given.close_container_side()
        relay.close()
        for fd in ours:
            os.close(fd)
