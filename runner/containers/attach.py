"""A user's terminal and signals, tied to a container while it runs in the foreground."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager

from image.value import dataclass
from runner.containers import terminal
from runner.containers.relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Final, Protocol

    class Attachable(Protocol):
        """A container that runs."""

        console: int | None

        def kill(self, number: int) -> None: ...

        def resize(self, rows: int, columns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class UserStdio:
    """The user's descriptors."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


OWN_STDIO: Final = UserStdio()


@contextmanager
def window(container: Attachable, user: UserStdio, relay: Relay, *, interactive: bool) -> Iterator[None]:
    """Our terminal as a window on the container's: its bytes, its size and, interactive, its keys."""
    console = container.console
    assert console is not None
    relay.add_output(console, user.stdout)

    def resized(_number: int, _frame: FrameType | None) -> None:
        size = terminal.size(user.stdout, user.stdin)
        if size:
            container.resize(*size)

    with ExitStack() as held:
        if interactive:
            relay.set_input(user.stdin, console, close_at_end=False)
            if os.isatty(user.stdin):
                held.enter_context(terminal.raw_mode(user.stdin))
        before = signal.signal(signal.SIGWINCH, resized)
        held.callback(signal.signal, signal.SIGWINCH, before)
        resized(0, None)  # it may have changed since the container was planned
        yield
