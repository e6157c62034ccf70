"""What every verb of the command line gets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from image.value import dataclass
from runner.runtime import record
from runner.runtime.arguments import Arguments, Options
from runner.runtime.operations import Operation
from runner.runtime.record import Record
from runner.runtime.state import check_id


@dataclass(frozen=True, slots=True)
class Call:
    """``root`` holds the records; ``warn`` tells the user."""

    arguments: Arguments
    root: Path
    warn: Callable[[str], None]

    @property
    def options(self) -> Options:
        return self.arguments.options

    @property
    def container_id(self) -> str:
        """The first operand. Raises InvalidInput when it cannot be one."""
        return check_id(self.arguments.operands[0])

    def container(self) -> Record:
        """The container that the first operand names. Raises ContainerNotFound."""
        return record.read(self.root, self.container_id)

    @property
    def trace(self) -> Callable[[Operation], None] | None:
        """Prints every step of a start, with --debug."""
        if not self.arguments.common.flag("debug"):
            return None
        return lambda operation: say(2, f"+ {operation}\n")


def say(fd: int, text: str) -> None:
    """Unbuffered, whatever the bytes of a path are."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(fd, data) :]
