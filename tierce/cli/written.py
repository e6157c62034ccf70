"""Where a command's archive goes: standard output, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from image.errors import InvalidInput
from tierce.cli.terminal import is_terminal


@contextmanager
def written(output: str) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Where an archive goes: standard output, or a file that appears whole or not at all.

    What is there and no file, a device or a pipe, is written to and stays. Raises InvalidInput
    for a terminal or a directory; StorageError.
    """
    from store.content import storage_errors

    if output == "-":
        if is_terminal(sys.stdout):
            raise InvalidInput("cowardly refusing to save to a terminal: use the -o flag or redirect")
        yield _writer(sys.stdout.fileno(), "standard output")
        return
    mode = 0
    with suppress(OSError):
        mode = os.stat(output).st_mode
    if stat.S_ISDIR(mode):
        raise InvalidInput(f"cannot write {output}: it is a directory")
    if mode and not stat.S_ISREG(mode):
        with storage_errors(f"write {output}"):
            fd = os.open(output, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield _writer(fd, output)
        finally:
            os.close(fd)
        return
    from transfer.transports.files import NewFile

    with NewFile(Path(os.path.realpath(output))) as new:
        yield new.write
        new.commit()


def _writer(fd: int, what: str) -> Callable[[bytes | memoryview], None]:
    from store.content import storage_errors

    def write(data: bytes | memoryview) -> None:
        view = memoryview(data)
        with storage_errors(f"write {what}"):
            while view:
                view = view[os.write(fd, view) :]

    return write
