"""Run other people's programs: daemons that stop with the test, and commands that explain themselves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SLEEPS: Final = frozenset({"35", "230", "101", "115"})
"""nanosleep and clock_nanosleep, on x86-64 and arm64."""

DAEMONS: set[int] = set()
"""Process ids of the daemons that run now; ``leftovers`` does not take them for leaks."""


def need(program: str, *, package: str | None = None) -> str:
    """The path of ``program``; the test is skipped when the machine has none."""
    found = shutil.which(program)
    if found is None:
        import pytest  # here, because the demo and the benchmarks start daemons too

        pytest.skip(f"needs {program} (package {package or program})")
    return found


def command(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, stdin: str | None = None) -> str:
    """Standard output of a command that must succeed; its error output is in the failure otherwise."""
    done = subprocess.run(
        [str(word) for word in argv], check=False, capture_output=True, text=True, input=stdin, env=env, timeout=600
    )
    if done.returncode != 0:
        shown = " ".join(str(word) for word in argv)
        raise AssertionError(f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def daemon(
    argv: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> Iterator[int]:
    """A running daemon's process id, from when it is ``ready`` to the end of the block.

    It gets SIGTERM at the end, and also from the kernel when this process is killed.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
    DAEMONS.add(process.pid)
    try:
        _await(process, ready, log, timeout_s)
        yield process.pid
    finally:
        _stop(process)
        DAEMONS.discard(process.pid)


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{process.args!r} did not come up:\n{tail}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=30)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def unmount_below(directory: Path) -> None:
    """Detach every mount at or below ``directory``, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]
    for point in sorted((p for p in points if Path(p).is_relative_to(directory)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups called ``name`` at the top of each hierarchy, with what is below them."""
    for top in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup") / name]:
        for directory, _, _ in sorted(os.walk(top), reverse=True):
            Path(directory).rmdir()


def is_asleep(pid: int) -> bool:
    """Whether the process sleeps between two looks at something."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        return file.read().split()[0] in _SLEEPS
