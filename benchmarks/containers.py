"""Containers that outlive their command, and many at a time: beside docker and podman."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench
from tests.support.process import command

_MANY = 50
_OUTPUT = 100_000_000
_BLOCK = 1 << 20
_TALK = f"yes 0123456789abcdefghijklmnopqrstuvwxyz0123456789 | head -c {_OUTPUT}"
_QUIET = "--network=none"
_STAYING = ("runner.", "containerd-shim", "conmon")
"""How the processes begin that stay beside a container: other programs start meanwhile too."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One tool: ``argv`` of a command, and the flags that its ``run`` needs on such a machine."""

    name: str
    argv: Callable[..., Sequence[str | Path]]
    environment: dict[str, str]
    run_flags: tuple[str, ...] = ()

    def __call__(self, *words: str) -> str:
        return command(self.argv(*words), env=self.environment)

    def run_argv(self, *words: str) -> list[str]:
        return [str(word) for word in self.argv("run", *self.run_flags, *words)]

    def run(self, *words: str) -> str:
        return command(self.run_argv(*words), env=self.environment)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """``run`` in the background of the shell, as it were."""
        return subprocess.Popen(
            self.run_argv(*words), env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )


def engines(bench: Bench) -> list[Engine]:
    """Those that are here, ours first."""
    found = [Engine("tierce", bench.tierce.argv, bench.tierce.env())]
    if docker := bench.docker:
        found.append(Engine("docker", lambda *words: (docker.client, *words), dict(docker.environment)))
    if podman := bench.podman:
        found.append(Engine("podman", podman.argv, dict(podman.environment), podman.run_options()))
    return found


def run_bridge(bench: Bench) -> Benchmark:
    """``run --rm busybox true`` on the default bridge. The private docker has none."""
    found = [
        Contender(one.name, lambda one=one: one.run("--rm", "busybox", "true"))  # type: ignore[misc]
        for one in engines(bench)
        if one.name != "docker"
    ]
    return Benchmark("run-bridge", "run --rm busybox true, on the default bridge", tuple(found))


def run_detached(bench: Bench) -> Benchmark:
    """``run -d`` until the command is back; the container is removed before the next round."""
    return _benchmark(
        bench, "run-detached", "run -d busybox sleep 1000",
        lambda one: one.run("-d", "--name", "bench-detached", _QUIET, "busybox", "sleep", "1000"),
        lambda one: _remove(one, "bench-detached"),
    )  # fmt: skip


def run_watched(bench: Bench) -> Benchmark:
    """``run`` without ``--rm``: the container stays, with its log."""
    return _benchmark(
        bench, "run-kept", "run busybox true, whose container is kept",
        lambda one: one.run("--name", "bench-kept", _QUIET, "busybox", "true"),
        lambda one: _remove(one, "bench-kept"),
    )  # fmt: skip


def run_many(bench: Bench) -> Benchmark:
    """Fifty commands at a time, until the last has ended."""
    return _benchmark(bench, "run-many", f"{_MANY} times run --rm busybox true, all at once", _run_fifty)


def _run_fifty(one: Engine, flags: Callable[[int], tuple[str, ...]] = lambda _: ("--rm",)) -> None:
    """With the flags of each."""
    started = [one.start(*flags(number), _QUIET, "busybox", "true") for number in range(_MANY)]
    codes = [process.wait(timeout=300) for process in started]
    assert not any(codes), f"exit codes {codes}"


def exec_true(bench: Bench) -> Benchmark:
    """One more process in a container that sleeps."""
    _start_sleeping(bench, "bench-exec")
    return _benchmark(bench, "exec", "exec true in a running container", lambda one: one("exec", "bench-exec", "true"))


def output(bench: Bench) -> Benchmark:
    """100 MB of lines into a container's log, from ``run -d`` to the end of ``wait``."""

    def run(one: Engine) -> None:
        one.run("-d", "--name", "bench-output", _QUIET, "busybox", "sh", "-c", _TALK)
        one("wait", "bench-output")

    return _benchmark(
        bench, "output", "100 MB of lines into a log of json-file", run, lambda one: _remove(one, "bench-output")
    )


def logs(bench: Bench) -> Benchmark:
    """``logs`` of 100 MB that a container has said: docker's takes 14 s a round, podman's 7."""
    for one in engines(bench):
        _remove(one, "bench-logs")
        one.run("-d", "--name", "bench-logs", _QUIET, "busybox", "sh", "-c", _TALK)
        one("wait", "bench-logs")
        bench.at_end(lambda one=one: _remove(one, "bench-logs"))  # type: ignore[misc]

    return _benchmark(bench, "logs", "logs of 100 MB", _read_log, is_warm=True)


def _read_log(one: Engine) -> None:
    argv = [str(word) for word in one.argv("logs", "bench-logs")]
    with subprocess.Popen(argv, env=one.environment, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        size = 0
        while block := process.stdout.read(_BLOCK):
            size += len(block)
    assert (process.returncode, size) == (0, _OUTPUT), f"exit code {process.returncode} after {size} bytes"


def ps(bench: Bench) -> Benchmark:
    """``ps`` with a container that runs."""
    _start_sleeping(bench, "bench-ps")
    return _benchmark(bench, "ps", "ps with running containers", lambda one: one("ps"))


def ps_many(bench: Bench) -> Benchmark:
    """``ps --all`` with fifty containers that have ended."""
    names = [f"bench-ended-{number}" for number in range(_MANY)]
    for one in engines(bench):
        bench.at_end(lambda one=one: _remove(one, *names))  # type: ignore[misc]
        _run_fifty(one, lambda number: ("--name", names[number]))

    def run(one: Engine) -> None:
        assert one("ps", "--all").count("bench-ended-") == _MANY

    return _benchmark(bench, "ps-many", f"ps --all with {_MANY} containers that have ended", run)


def residents(bench: Bench) -> str:
    """What stays in memory for each running container: every process that its start has left."""
    lines = ["memory: processes that a running container adds, without its own: resident (proportional) kB"]
    for one in engines(bench):
        before = _processes()
        identifier = one.run("-d", _QUIET, "busybox", "sleep", "1000").strip()
        own = one("inspect", "-f", "{{.State.Pid}}", identifier).strip()
        found = [pid for pid in _processes() - before - {own} if _memory(pid)[0] and _name(pid).startswith(_STAYING)]
        shown = ", ".join(f"{_name(pid)} {_memory(pid)[0]} ({_memory(pid)[1]})" for pid in sorted(found, key=int))
        total = [sum(_memory(pid)[position] for pid in found) for position in (0, 1)]
        lines.append(f"  {one.name:<18} {total[0]} ({total[1]}): {shown}")
        _remove(one, identifier)
    return "\n".join(lines)


def _processes() -> set[str]:
    return {path.name for path in Path("/proc").iterdir() if path.name.isdigit()}


def _name(pid: str) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    ours = [part.split(" import")[0] for word in words for part in word.split("from ")[1:]]
    return ours[0] if ours else Path(words[0]).name


def _memory(pid: str) -> tuple[int, int]:
    """Resident and proportional set, in kB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    return sizes["Rss"], sizes["Pss"]


def _start_sleeping(bench: Bench, name: str) -> None:
    """A container in each engine, until the benchmarks end."""
    for one in engines(bench):
        _remove(one, name)
        one.run("-d", "--name", name, _QUIET, "busybox", "sleep", "1000")
        bench.at_end(lambda one=one: _remove(one, name))  # type: ignore[misc]


def _remove(one: Engine, *names: str) -> None:
    argv = [str(word) for word in one.argv("rm", "-f", *names)]
    subprocess.run(argv, env=one.environment, check=False, capture_output=True)


def _benchmark(
    bench: Bench,
    name: str,
    work: str,
    run: Callable[[Engine], object],
    prepare: Callable[[Engine], object] = lambda _: None,
    *,
    is_warm: bool = False,
) -> Benchmark:
    found = engines(bench)
    for one in found:
        bench.at_end(lambda one=one: prepare(one))  # type: ignore[misc]
    return Benchmark(name, work, tuple(_contenders(found, run, prepare)), is_warm=is_warm)


def _contenders(
    of: Iterable[Engine], run: Callable[[Engine], object], prepare: Callable[[Engine], object]
) -> Iterable[Contender]:
    for one in of:
        yield Contender(one.name, lambda one=one: run(one), lambda one=one: prepare(one))  # type: ignore[misc]
