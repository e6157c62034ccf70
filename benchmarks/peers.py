"""What the benchmarks run on: one scratch directory with every tool, set up once.

A tool that the machine lacks is ``None``, and benchmarks go on without it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

from benchmarks.scratch import end_processes, scratch_file_system
from fixtures import busybox
from tests.support.cli import Tierce
from tests.support.dockerd import Docker, dockerd
from tests.support.podman import Podman, podman
from tests.support.registry import Registry, registry

T = TypeVar("T")


@dataclass(slots=True)
class FreshRegistry:
    """A registry that can be made empty again, so that every push really uploads."""

    directory: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _running: Registry | None = None

    @property
    def running(self) -> Registry:
        return self._running or self.reset()

    def reset(self) -> Registry:
        """Start an empty one in place of what was there."""
        self.close()
        self._running = self._stack.enter_context(registry(self.directory))
        return self._running

    def close(self) -> None:
        self._stack.close()
        self._running = None
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Tools and places. All have busybox:latest."""

    scratch: Path
    tierce: Tierce
    docker: Docker | None
    podman: Podman | None
    registry: FreshRegistry | None
    skopeo: str | None
    runc: str | None
    _stack: ExitStack
    _serial: Iterator[int] = field(default_factory=count)

    def at_end(self, task: Callable[[], object]) -> None:
        """Do this when all benchmarks are done."""
        self._stack.callback(task)

    def keep(self, manager: AbstractContextManager[T]) -> T:
        """Enter it, until all benchmarks are done."""
        return self._stack.enter_context(manager)

    def unique(self) -> str:
        """A word that was not used before: for fresh names, roots and cache keys."""
        return f"n{next(self._serial)}"


def installed_tierce(root: Path) -> Tierce:
    """The command as users start it: the script that pip installed beside this interpreter."""
    script = Path(sys.executable).with_name("tierce")
    return Tierce(root, program=(str(script),) if script.exists() else (sys.executable, "-m", "tierce"))


@contextmanager
def bench() -> Iterator[Bench]:
    """Everything set up, and gone at the end of the block."""
    with scratch_file_system(_forget_killed) as scratch, ExitStack() as stack:
        yield _set_up(scratch, stack)


def _forget_killed(scratch: Path) -> None:
    """Any command takes back what killed containers have of the host: groups, bridges, tables."""
    installed_tierce(scratch / "tierce").attempt("ps")


def _set_up(scratch: Path, stack: ExitStack) -> Bench:
    def start(program: str, manager: AbstractContextManager[T]) -> T | None:
        return stack.enter_context(manager) if shutil.which(program) else None

    archive = busybox.image()
    tierce = installed_tierce(scratch / "tierce")
    docker = start("dockerd", dockerd(scratch / "docker"))
    podman_here = start("podman", podman(scratch / "podman"))
    if podman_here:
        stack.callback(end_processes, podman_here.directory)  # of an interrupted command, whose groups are removed next
    fresh = FreshRegistry(scratch / "registry") if shutil.which("docker-registry") else None
    if fresh:
        stack.callback(fresh.close)
    tierce.attempt("load", "--input", archive)
    if docker:
        docker("load", "--input", archive)
    if podman_here:
        podman_here("load", "--input", archive)
    return Bench(scratch, tierce, docker, podman_here, fresh, shutil.which("skopeo"), shutil.which("runc"), stack)
