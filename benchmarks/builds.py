"""Builds: nothing changed, everything changed, and steps that do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench
from fixtures import busybox
from fixtures.cache import PROJECT
from tests.support.context import File, write_context

FILES = 3000
"""Files in the context of the cold build, of about 6 kB each."""

_COLD = """\
FROM busybox AS build
ARG NONCE
WORKDIR /src
COPY . .
RUN echo $NONCE > nonce && find . -type f | sort | xargs cat | sha256sum > sum
RUN mkdir /out && tar -cf - . | tar -xf - -C /out
FROM busybox
ARG NONCE
COPY --from=build /out /app
RUN echo $NONCE && find /app -type f | wc -l > /count
"""

_PROJECT = (
    "FROM busybox\nARG NONCE\nRUN echo $NONCE\n"
    + "".join(f"COPY d{part} /app/d{part}\nRUN ls /app/d{part} | wc -l\nRUN echo {part}\n" for part in range(5))
    + "RUN echo done\n"
)
_PROJECT_WORK = "build 29,000 files of 255 MB in 5 COPY and 12 RUN"

_TEN_STEPS = "FROM busybox\nARG NONCE\n" + "".join(f"RUN true {step}\n" for step in range(10))


def cached_rebuild(bench: Bench) -> Benchmark:
    """Build an example again with nothing changed: what a developer waits for most often."""
    context = PROJECT / "Dockerfile.examples" / "site"
    contenders = _builders(bench, "cached", context, lambda: ())
    return Benchmark("cached-rebuild", "build Dockerfile.examples/site, nothing changed", contenders)


def cached_rebuild_large(bench: Bench) -> Benchmark:
    """Build a project of many files again with nothing changed: the context must be looked through."""
    contenders = _builders(bench, "cached-large", large_context(bench, "cached-large"), lambda: ())
    return Benchmark("cached-large", f"build two stages from {FILES} files, nothing changed", contenders)


def cold_build(bench: Bench) -> Benchmark:
    """Build two stages of which nothing is cached."""
    context = large_context(bench, "cold")
    contenders = _builders(bench, "cold", context, lambda: ("--build-arg", f"NONCE={bench.unique()}"))
    return Benchmark(
        "cold-build",
        f"build two stages from {FILES} files",
        contenders,
        "COPY of the context may be cached: the argument busts RUN",
    )


def ten_steps(bench: Bench) -> Benchmark:
    """Ten RUN that do nothing: the price of a step."""
    context = write_context(bench.scratch / "ten", {"Dockerfile": File(_TEN_STEPS)})
    contenders = _builders(bench, "ten", context, lambda: ("--build-arg", f"NONCE={bench.unique()}"))
    return Benchmark("ten-steps", "ten steps of RUN true, none cached", contenders)


def isolations(bench: Bench) -> Benchmark:
    """What a step costs where nothing can be mounted: a directory looked through, a supervisor asked."""
    context = write_context(bench.scratch / "isolations", {"Dockerfile": File(_TEN_STEPS)})

    def build(isolation: str) -> Contender:
        def run() -> object:
            words = ("--network=host", "--isolation", isolation, "--build-arg", f"NONCE={bench.unique()}")
            return bench.tierce("build", "--quiet", *words, "--tag", "isolated", context)

        return Contender(f"tierce, {isolation}", run)

    contenders = (build("namespaces"), build("chroot"))
    note = "emulated is for users without rights, and has no contender here"
    return Benchmark("isolations", "ten steps of RUN true by isolation", contenders, note)


def project_cold(bench: Bench) -> Benchmark:
    """Build a large project of which nothing is cached."""
    contenders = _builders(bench, "project", _project(bench), lambda: ("--no-cache",))
    note = "docker's daemon keeps its copy of the context from the round before"
    return Benchmark("project-cold", f"{_PROJECT_WORK}, nothing cached", contenders, note)


def project_fresh(bench: Bench) -> Benchmark:
    """Build a large project with tools that never saw it: hashed, sent and copied for the first time."""
    context = _project(bench)
    tierce, docker = bench.tierce, bench.docker

    def new_store() -> None:
        nonlocal tierce
        tierce = replace(bench.tierce, root=bench.scratch / bench.unique())
        tierce("load", "--input", busybox.image())

    contenders = [
        Contender(
            "tierce", lambda: tierce("build", "--quiet", "--network=host", "--tag", "fresh", context), prepare=new_store
        )
    ]
    if docker:
        contenders.append(
            Contender(
                "docker (BuildKit)",
                lambda: docker.build("fresh", context),
                prepare=lambda: docker("builder", "prune", "--all", "--force"),
            )
        )
    return Benchmark("project-fresh", f"{_PROJECT_WORK}, never seen before", tuple(contenders))


def project_unchanged(bench: Bench) -> Benchmark:
    """Build a large project again with nothing changed."""
    contenders = _builders(bench, "project", _project(bench), lambda: ())
    return Benchmark("project-unchanged", f"{_PROJECT_WORK}, nothing changed", contenders)


def project_one_file(bench: Bench) -> Benchmark:
    """Build a large project again after one of its files changed."""
    context = _project(bench)

    def change() -> None:
        (context / "d2" / "f2").write_text(bench.unique())

    contenders = tuple(
        replace(contender, prepare=change) for contender in _builders(bench, "project", context, lambda: ())
    )
    return Benchmark("project-one-file", f"{_PROJECT_WORK}, one file changed", contenders)


def _project(bench: Bench) -> Path:
    """29,000 files of 255 MB in five directories, made once a run."""
    context = bench.scratch / "project"
    if context.exists():
        return context
    words = [f"word{number * 7919 % 5003}" for number in range(1500)]
    for part in range(5):
        (context / f"d{part}").mkdir(parents=True)
    for number in range(29_000):
        start = number * 31 % 300
        text = f"file {number}\n" + " ".join(words[start : start + 1000])
        (context / f"d{number % 5}" / f"f{number}").write_text(text)
    (context / "Dockerfile").write_text(_PROJECT)
    return context


def large_context(bench: Bench, name: str) -> Path:
    """A project of two stages and many files."""
    files = {f"d{n % 50}/f{n}": File(f"{n} of the context\n" * 300) for n in range(FILES)}
    return write_context(bench.scratch / name, {"Dockerfile": File(_COLD), **files})


def _builders(bench: Bench, name: str, context: Path, options: Callable[[], tuple[str, ...]]) -> tuple[Contender, ...]:
    tierce, docker, podman = bench.tierce, bench.docker, bench.podman
    found = [
        Contender("tierce", lambda: tierce("build", "--quiet", "--network=host", "--tag", name, *options(), context))
    ]
    if docker:
        found.append(Contender("docker (BuildKit)", lambda: docker.build(name, context, *options())))
    if podman:
        found.append(Contender("buildah", lambda: podman.build(name, context, *options())))
    return tuple(found)
