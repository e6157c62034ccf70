"""Run ``tierce`` as a user does: a process with arguments, an exit code and two streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and what it said."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"{' '.join(self.argv)}: exit code {self.code}\n{self.stdout}{self.stderr}"


@dataclass(frozen=True, slots=True)
class Tierce:
    """``tierce --root ROOT`` with credentials of its own; calling it runs a command.

    ``tierce("images")`` must succeed or the test fails with all that was printed;
    ``tierce.attempt("rmi", "absent")`` takes any exit code.
    """

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (sys.executable, "-m", "tierce")

    def argv(self, *args: str | Path) -> tuple[str, ...]:
        return (*self.program, "--root", str(self.root), *map(str, args))

    def __call__(
        self, *args: str | Path, stdin: str | None = None, cwd: Path | None = None, timeout_s: float = 600
    ) -> Result:
        result = self.attempt(*args, stdin=stdin, cwd=cwd, timeout_s=timeout_s)
        assert result.code == 0, str(result)
        return result

    def attempt(
        self, *args: str | Path, stdin: str | None = None, cwd: Path | None = None, timeout_s: float = 600
    ) -> Result:
        argv = self.argv(*args)
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, input=stdin, cwd=cwd, env=self.env(), timeout=timeout_s
        )
        return Result(argv, done.returncode, done.stdout, done.stderr)

    def start(self, *args: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        """The command as a running process, to signal or to talk to; the caller waits for it."""
        return subprocess.Popen(
            self.argv(*args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=self.env(),
        )

    @contextmanager
    def foreground(self, *args: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command that runs until it gets Ctrl-C at the end of the block, and must then end soon."""
        with self.start(*args) as process:  # leaving waits for it and closes its pipes
            try:
                yield process
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=30)
            except BaseException as error:
                process.kill()
                said, complained = process.communicate()
                error.add_note(f"{' '.join(self.argv(*args))}: exit code {process.returncode}\n{said}{complained}")
                raise

    def env(self) -> dict[str, str]:
        """The environment of each command: the caller's, with credentials and run-time state kept beside the root."""
        private = {
            "DOCKER_CONFIG": str(self.root.with_name(f"{self.root.name}-credentials")),
            "TIERCE_RUNTIME_DIR": str(self.root.with_name(f"{self.root.name}-run")),
        }
        return os.environ | private | dict(self.environment)
