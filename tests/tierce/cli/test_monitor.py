"""A container's monitor: what it takes, and what it leaves when it is killed in each phase of its work."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.waiting import until

pytestmark = pytest.mark.root
NAMED = ("--network", "none", "--name", "mm")
OBEDIENT = "trap 'printf last; exit 3' TERM; echo said; while :; do sleep 0.05; done"


def inspected(box: Tierce, form: str) -> str:
    return box("inspect", "-f", form, "mm").stdout.strip()


def how_it_went(box: Tierce) -> str:
    return inspected(box, "{{.State.Status}} {{.State.ExitCode}}")


def monitor(box: Tierce) -> int:
    """The pid of the one process that has the container's lock open."""
    (lock,) = (box.root / "containers").glob("*/monitor")
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if entry.readlink() == lock:
                return int(entry.parts[2])
        except OSError:
            continue
    raise AssertionError("nobody watches the container")


def program(box: Tierce) -> str:
    """What the monitor is at the moment: ``monitor`` or ``keeper``."""
    words = Path(f"/proc/{monitor(box)}/cmdline").read_text()
    return next(name for name in ("monitor", "keeper") if f"runner.containers.{name} " in words)


def start_obedient(box: Tierce, *options: str) -> int:
    """A container that ends with 3 when the process whose pid this is gets TERM."""
    box("run", "-d", *options, "busybox", "sh", "-c", OBEDIENT)
    until(lambda: box("logs", "mm").stdout == "said\n" and program(box) == "keeper")
    return int(inspected(box, "{{.State.Pid}}"))


def kill(box: Tierce) -> None:
    pid = monitor(box)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}/exe").exists())


@contextmanager
def database_locked(box: Tierce) -> Iterator[None]:
    """Nobody writes a record meanwhile."""
    connection = sqlite3.connect(box.root / "metadata.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextmanager
def runtime_locked(box: Tierce) -> Iterator[None]:
    """No container begins or ends meanwhile."""
    place = Path(box.env()["TIERCE_RUNTIME_DIR"])
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_it_takes_little_memory_however_much_the_container_says(box: Tierce) -> None:
    script = "yes 0123456789abcdef | head -c 10000000; exec sleep 60"
    box("run", "-d", *NAMED, "busybox", "sh", "-c", script)
    (log,) = (box.root / "containers").glob("*/*-json.log")
    until(lambda: log.stat().st_size > 10_000_000 and program(box) == "keeper")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{monitor(box)}/status").read_text().splitlines())
    assert int(status["VmHWM"].split()[0]) < 12 << 10


def test_killed_before_the_container_runs(box: Tierce) -> None:
    with runtime_locked(box), box.start("run", "-d", *NAMED, "busybox", "sleep", "60") as command:
        until(lambda: next((box.root / "containers").glob("*/*-json.log"), None) is not None)
        assert program(box) == "monitor"
        kill(box)
        assert "monitor died" in command.communicate(timeout=30)[1]
    assert command.returncode == 125
    assert how_it_went(box) == "created 0"
    assert box("start", "mm").stdout == "mm\n"
    assert how_it_went(box) == "running 0"


def test_killed_while_the_container_runs(box: Tierce) -> None:
    box("run", "-d", *NAMED, "busybox", "sh", "-c", "echo said; exec sleep 60")
    until(lambda: box("logs", "mm").stdout == "said\n" and program(box) == "keeper")
    pid = int(inspected(box, "{{.State.Pid}}"))
    kill(box)
    assert how_it_went(box) == "exited 137"
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    assert box("logs", "mm").stdout == "said\n"


def test_killed_between_the_container_s_end_and_its_record(box: Tierce) -> None:
    pid = start_obedient(box, *NAMED)
    with database_locked(box):
        os.kill(pid, signal.SIGTERM)
        until(lambda: program(box) == "monitor")
        kill(box)
    assert how_it_went(box) == "exited 3"
    assert box("logs", "mm").stdout == "said\nlast"
    assert box("start", "mm").stdout == "mm\n"


def test_killed_while_it_gives_back_what_the_container_had(box: Tierce) -> None:
    pid = start_obedient(box, "--name", "mm", "-p", "127.0.0.1:18474:80")
    with runtime_locked(box):
        os.kill(pid, signal.SIGTERM)
        until(lambda: program(box) == "monitor" and how_it_went(box) == "exited 3")
        kill(box)
    assert how_it_went(box) == "exited 3"
    assert box("run", "--rm", "-p", "127.0.0.1:18474:80", "busybox", "echo", "free").stdout == "free\n"


def test_killed_while_it_waits_to_start_again(box: Tierce) -> None:
    box("run", "-d", *NAMED, "--restart", "always", "busybox", "sh", "-c", "exit 4")
    until(lambda: inspected(box, "{{.State.Status}} {{gt .RestartCount 2}}") == "restarting true")
    kill(box)
    assert how_it_went(box) == "exited 4"
    box("rm", "mm")


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_a_killed_command_leaves_the_container_to_its_monitor(signal_number: int, box: Tierce) -> None:
    with runtime_locked(box), box.start("run", *NAMED, "busybox", "sleep", "60") as command:
        until(lambda: next((box.root / "containers").glob("*/*-json.log"), None) is not None)
        command.send_signal(signal_number)
        command.communicate(timeout=30)
    until(lambda: how_it_went(box) == "running 0")


SUBREAPER = """
import ctypes, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
tierce = sys.argv[1:]
subprocess.run([*tierce, "exec", "-d", "mm", "sleep", "1000"], check=True)
subprocess.run([*tierce, "restart", "-t", "0", "mm"], check=True)
"""


def test_what_was_executed_detached_ends_where_nobody_waits_for_orphans(box: Tierce) -> None:
    """A pid namespace ends once all its processes have been waited for, by whoever is their parent."""
    box("run", "-d", *NAMED, "busybox", "sleep", "1000")
    first = inspected(box, "{{.State.Pid}}")
    done = subprocess.run(
        [sys.executable, "-c", SUBREAPER, *box.argv()], check=False, env=box.env(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert inspected(box, "{{.State.Status}}") == "running"
    assert inspected(box, "{{.State.Pid}}") != first
    assert "1000" in box("top", "mm").stdout
