"""A program that tries to get out of a step, and one outside that it would like to execute."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.linux.confine import landlock_abi
from tests.support.process import need

_SOURCE = Path(__file__).with_name("attempts.c")
_OUTSIDE = 'int main(void) { return write(1, "EXECUTED\\n", 9) != 9; }'


def attempts_context(directory: Path) -> Path:
    """A build context whose image has the program as ``/attempts``."""
    directory.mkdir()
    compile_static(directory / "attempts", _SOURCE.read_text())
    (directory / "Dockerfile").write_text("FROM busybox\nCOPY attempts /attempts\n")
    return directory


def program_outside(path: Path) -> Path:
    """Says ``EXECUTED``; anybody may execute it."""
    compile_static(path, f"#include <unistd.h>\n{_OUTSIDE}")
    path.chmod(0o755)
    return path


def reached(said: str) -> list[str]:
    """The lines of what a program that tries to get out said, but for what only landlock's scopes close (Linux 6.12)."""
    open_before = () if landlock_abi() >= 6 else ("SIGNALLED", "CONNECTED", "SENT")
    return [line for line in said.splitlines() if not line.startswith(open_before)]


@contextmanager
def listening(name: str) -> Iterator[None]:
    """Somebody is there on an abstract socket."""
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        stream.bind(f"\0{name}")
        stream.listen()
        datagrams.bind(f"\0{name}-datagrams")
        yield


def compile_static(out: Path, text: str) -> None:
    """A C program that needs nothing of an image. Skips without a compiler."""
    command = [need("cc", package="gcc"), "-static", "-no-pie", "-pthread", "-w", "-x", "c", "-", "-o", str(out)]
    subprocess.run(command, input=text, text=True, check=True)
