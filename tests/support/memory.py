"""How much memory a command takes at its peak, with the processes that it starts and waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_MEASURE = """
import os, resource, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status = os.waitpid(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """``peak_kib`` is that of the largest single process."""

    code: int
    stderr: bytes
    peak_kib: int


def measure(
    argv: Sequence[str],
    scratch: Path,
    *,
    stdin: IO[bytes] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Measured:
    """Run a command to its end. ``argv[0]`` is a whole path; ``scratch`` a directory.

    A bare interpreter stands between: a process's peak is counted from that of the one that
    started it on, and the one that runs tests is large.
    """
    told = scratch / "peak"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MEASURE, str(told), *argv],
        check=False, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd,
        env={**os.environ} if env is None else dict(env),
    )  # fmt: skip
    return Measured(done.returncode, done.stderr, int(told.read_text()))
