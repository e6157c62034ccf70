"""What every verb of the command line gets. Imports little: ``spawn`` comes before everything else."""

from __future__ import annotations

import os

from image.errors import InvalidInput
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from runner.runtime.arguments import Arguments, Options
    from runner.runtime.operations import Operation
    from runner.runtime.record import Record
    from runner.runtime.spawn import Watcher

_MOST_DESCRIPTORS: Final = 1024


@dataclass(frozen=True, slots=True)
class Call:
    """``warn`` tells the user."""

    arguments: Arguments
    warn: Callable[[str], None]

    @property
    def options(self) -> Options:
        return self.arguments.options

    @property
    def root(self) -> str:
        """The directory of the records."""
        if given := self.arguments.common.text("root"):
            return given
        from runner.runtime.names import runtime_path

        return f"{runtime_path(os.environ, os.geteuid())}/oci"

    @property
    def container_id(self) -> str:
        """The first operand. Raises InvalidInput when it cannot be one."""
        from runner.runtime.names import check_id

        return check_id(self.arguments.operands[0])

    def container(self) -> Record:
        """The container that the first operand names. Raises ContainerNotFound."""
        from runner.runtime import record

        return record.read(self.root, self.container_id)

    def spawn(self, *, detached: bool) -> Watcher:
        """The process that will be the container's, with our descriptors; a closed one is /dev/null.

        It starts beside what the caller imports after this. Raises InvalidInput, NotPermitted.
        """
        from runner.runtime.spawn import Stdio, spawn

        extra, _ = preserved(self.options)
        stdin, stdout, stderr = (fd if _is_open(fd) else None for fd in (0, 1, 2))
        return spawn(Stdio(stdin, stdout, stderr, extra), detached=detached)

    @property
    def trace(self) -> Callable[[Operation], None] | None:
        """Prints every step of a start, with --debug."""
        if not self.arguments.common.flag("debug"):
            return None
        return lambda operation: say(2, f"+ {operation}\n")


def preserved(options: Options) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Descriptors that go along, and what the environment says of them: those of LISTEN_FDS, then of --preserve-fds.

    Raises InvalidInput when one is not open.
    """
    count = options.number("preserve-fds") or 0
    listening = os.environ.get("LISTEN_FDS", "0")
    passed = int(listening) if listening.isdigit() else 0
    if count < 0 or passed + count > _MOST_DESCRIPTORS:
        raise InvalidInput(f"cannot preserve {passed + count} descriptors")
    wanted = tuple(range(3, 3 + passed + count))
    for fd in wanted:
        if not _is_open(fd):
            raise InvalidInput(f"cannot preserve descriptor {fd}: it is not open")
    return wanted, (f"LISTEN_FDS={passed}", "LISTEN_PID=1") if passed else ()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def say(fd: int, text: str) -> None:
    """Unbuffered, whatever the bytes of a path are."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(fd, data) :]
