"""An ordinary user's containers, beside podman as the same user: with ranges in /etc/subuid and /etc/subgid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench
from fixtures import busybox
from runner.network.outward import find_program
from tests.support.ordinary_user import OrdinaryUser, ordinary_user, unreadable
from tests.support.podman import modest_limits

_NEEDED = ("useradd", "userdel", "setpriv", "newuidmap")


@dataclass(frozen=True, slots=True)
class Rootless:
    """Starts programs as the user. ``runtime`` is short: podman takes no more than 50 characters."""

    user: OrdinaryUser
    runtime: Path

    def __call__(self, argv: Sequence[str | Path]) -> str:
        """What it prints. Raises AssertionError."""
        user, environ = self.user, {"HOME": str(self.user.home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        done = subprocess.run(
            [str(word) for word in argv], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            user=user.uid, group=user.name, extra_groups=(), cwd=user.home, timeout=600,
            env=environ | {"XDG_RUNTIME_DIR": str(self.runtime)},
        )  # fmt: skip
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def tierce(self, *words: str | Path) -> str:
        return self([Path(sys.executable).with_name("tierce"), *words])

    def podman(self, *words: str | Path) -> str:
        storage = (
            "--root",
            self.user.home / "podman",
            "--runroot",
            self.runtime / "podman",
            "--storage-driver",
            "overlay",
        )
        return self(["podman", *storage, "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none", *words])  # fmt: skip


def run_true(bench: Bench) -> Benchmark:
    """``run --rm --network none busybox true`` as an ordinary user."""
    return _benchmark(bench, "rootless", "run --rm --network none busybox true, as an ordinary user", "none", "none")


def run_with_a_network(bench: Bench) -> Benchmark:
    """``run --rm busybox true`` as an ordinary user, with what leads outside."""
    ours = Path(found).name if (found := find_program()) else "nothing"
    note = f"tierce by {ours}, podman by slirp4netns"
    return _benchmark(
        bench, "rootless-network", "run --rm busybox true, as an ordinary user", "bridge", "slirp4netns", note
    )


def _benchmark(bench: Bench, name: str, work: str, ours: str, theirs: str, note: str = "") -> Benchmark:
    if path := unreadable():
        return Benchmark(name, work, (), f"needs {path} open to other users (chmod o+x)")
    as_user = _rootless(bench) if all(map(shutil.which, _NEEDED)) else None
    found: list[Contender] = []
    if as_user:
        found.append(Contender("tierce", _runs(as_user.tierce, "--network", ours)))
    if as_user and bench.podman:
        limits = [word for limit in modest_limits() for word in ("--ulimit", limit)]
        found.append(Contender("podman", _runs(as_user.podman, "--network", theirs, *limits)))
    return Benchmark(name, work, tuple(found), note)


def _runs(program: Callable[..., str], *flags: str) -> Callable[[], object]:
    return lambda: program("run", "--rm", *flags, "busybox", "true")


@cache
def _rootless(bench: Bench) -> Rootless:
    """A user who has busybox in both stores, until the benchmarks end."""
    user = bench.keep(ordinary_user(ranges=True, home_in=bench.scratch))
    runtime = bench.scratch / "u"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, user.uid, -1)
    found, archive = Rootless(user, runtime), user.give(busybox.image())
    found.tierce("load", "--input", archive)
    if bench.podman:
        found.podman("load", "--input", archive)
        bench.at_end(lambda: found.podman("system", "migrate"))  # which ends the process that keeps its namespaces
    return found
