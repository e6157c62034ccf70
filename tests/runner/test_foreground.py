"""Containers in the foreground, seen from a user's side of pipes and terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

import pytest

from image.errors import CommandNotStarted, InvalidInput
from runner.containers.start import exit_status

pytestmark = pytest.mark.root

CHECKOUT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
from pathlib import Path
from image.config import ContainerConfig
from image.errors import TierceError
from runner.containers.foreground import run
from runner.containers.options import NetworkOptions, RunOptions
from runner.containers.start import exit_status
from runner.runtime.privileges import probe
rootfs, root, options = sys.argv[1:4]
try:
    code = run(
        eval("RunOptions(" + options + ")"), ContainerConfig(), Path(rootfs), container_id=f"fg-{os.getpid()}", root=Path(root),
        privileges=probe(), environ=os.environ, cwd=os.getcwd(), warn=lambda text: print("warning:", text, file=sys.stderr),
    )
except TierceError as error:
    print(error, file=sys.stderr)
    code = exit_status(error)
sys.exit(code)
"""


@pytest.fixture
def command(shared_rootfs: Path, tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(shared_rootfs), str(tmp_path / "run")]


def options(script: str, more: str = "") -> str:
    return f"args=('sh', '-c', {script!r}), network=NetworkOptions(('none',)), {more}"


class TestPipes:
    def run(self, command: list[str], given: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        with subprocess.Popen(
            [*command, given],
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=CHECKOUT,
        ) as process:
            out, err = process.communicate(data, timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def test_output_and_errors_stay_apart(self, command: list[str]) -> None:
        done = self.run(command, options("echo out; echo err >&2; exit 3"))
        assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)

    def test_input_only_when_interactive(self, command: list[str]) -> None:
        assert self.run(command, options("cat", "interactive=True"), b"given").stdout == b"given"
        assert self.run(command, options("cat"), b"given").stdout == b""

    def test_large_output_is_whole(self, command: list[str]) -> None:
        done = self.run(command, options("head -c 20000000 /dev/zero"))
        assert len(done.stdout) == 20_000_000

    @pytest.mark.parametrize(
        ("given", "code", "text"),
        [
            (
                "args=('absent',), network=NetworkOptions(('none',))",
                127,
                b'exec: "absent": executable file not found in $PATH',
            ),
            ("args=('/etc',), network=NetworkOptions(('none',))", 126, b'exec: "/etc": is a directory'),
            ("network=NetworkOptions(('none',))", 125, b"no command specified"),
            ("args=('true',), user='nobody', network=NetworkOptions(('none',))", 125, b"unable to find user nobody"),
            ("args=('true',), interactive=True, tty=True", 125, b"the input device is not a TTY"),
        ],
        ids=["absent", "directory", "nothing", "user", "tty"],
    )
    def test_failures(self, command: list[str], given: str, code: int, text: bytes) -> None:
        done = self.run(command, given)
        assert done.returncode == code
        assert text in done.stderr
        assert b"Traceback" not in done.stderr

    def test_killed(self, command: list[str]) -> None:
        # pid 1 cannot kill itself, so a shell runs the one that dies
        assert self.run(command, options("sh -c 'kill -9 $$'; exit $?")).returncode == 137

    def test_signal_is_forwarded(self, command: list[str]) -> None:
        script = "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
        with subprocess.Popen([*command, options(script)], stdout=subprocess.PIPE, cwd=CHECKOUT) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.read() == b"got\n"
        assert process.returncode == 9

    def test_third_interrupt_kills(self, command: list[str]) -> None:
        script = "trap 'echo again' INT; echo ready; while :; do sleep 0.05; done"
        with subprocess.Popen([*command, options(script)], stdout=subprocess.PIPE, cwd=CHECKOUT) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == b"again\n"
            process.send_signal(signal.SIGINT)
        assert process.returncode == 137


class Terminal:
    """A user's terminal, with a program on it."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.master = master
        self.process = process
        self.seen = b""

    def until(self, text: bytes, timeout_s: float = 30) -> None:
        while text not in self.seen:
            assert select.select([self.master], [], [], timeout_s)[0], self.seen
            try:
                data = os.read(self.master, 1000)
            except OSError:
                data = b""
            assert data, self.seen
            self.seen += data

    def type(self, text: bytes) -> None:
        os.write(self.master, text)


@contextmanager
def on_terminal(command: list[str], given: str, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    import fcntl

    fcntl.ioctl(slave, termios.TIOCSWINSZ, pack("HHHH", rows, columns, 0, 0))
    before = termios.tcgetattr(slave)
    with subprocess.Popen(
        [*command, given], stdin=slave, stdout=slave, stderr=slave, cwd=CHECKOUT, start_new_session=True
    ) as process:
        try:
            yield Terminal(master, process)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)


class TestTerminal:
    def test_size_keys_and_resize(self, command: list[str]) -> None:
        # a signal ends `read` in some shells
        script = "stty size; trap 'stty size' WINCH; read a; echo ready; until read b; do :; done; echo $a$b; exit 4"
        with on_terminal(command, options(script, "interactive=True, tty=True"), 31, 91) as terminal:
            terminal.until(b"31 91")
            terminal.type(b"one\n")
            terminal.until(b"ready")
            import fcntl

            fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, pack("HHHH", 40, 100, 0, 0))
            terminal.process.send_signal(signal.SIGWINCH)
            terminal.until(b"40 100")
            terminal.type(b"two\n")
            terminal.until(b"onetwo")
            assert terminal.process.wait(30) == 4

    def test_interrupt_key_goes_to_the_container(self, command: list[str]) -> None:
        script = "trap 'echo trapped; exit 5' INT; echo ready; while :; do sleep 0.05; done"
        with on_terminal(command, options(script, "interactive=True, tty=True")) as terminal:
            terminal.until(b"ready")
            terminal.type(b"\x03")
            terminal.until(b"trapped")
            assert terminal.process.wait(30) == 5

    def test_without_t_the_container_never_holds_our_terminal(self, command: list[str]) -> None:
        script = "test -t 0 || test -t 1 || test -t 2 || echo none; read line; echo got $line"
        with on_terminal(command, options(script, "interactive=True")) as terminal:
            terminal.until(b"none")
            terminal.type(b"text\n")
            terminal.until(b"got text")
            assert terminal.process.wait(30) == 0


def test_exit_status() -> None:
    assert exit_status(CommandNotStarted("x", "why", 126)) == 126
    assert exit_status(InvalidInput("x")) == 125
