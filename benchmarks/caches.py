"""Caches that travel: written again with nothing new, and a build from one on a machine that has nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks.builds import large_context
from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench
from fixtures import busybox
from tests.support.cli import Tierce


def export_unchanged(bench: Bench) -> Benchmark:
    """Build with nothing changed and export the cache of every step again: no blob has to move."""
    if bench.registry is None:
        return _impossible("cache-export")
    context = large_context(bench, "cache-export")
    tierce, podman = bench.tierce, bench.podman
    ref = bench.registry.reset().name("bench/cache")
    words = ("build", "--quiet", "--network=host", "--tls-verify=false", "--tag", "cache-export")

    def export() -> None:
        tierce(*words, "--cache-to", f"type=registry,ref={ref},mode=max", context)

    found = [Contender("tierce", export)]
    if podman:
        own = bench.registry.running.name("bench/buildah-cache")

        def buildah() -> None:
            podman.build("cache-export", context, "--tls-verify=false", "--cache-to", own, "--cache-from", own)

        found.append(Contender("buildah", buildah))
    return Benchmark(
        "cache-export",
        "build two stages with nothing changed and export their cache to a registry that has it",
        tuple(found),
        "docker 20.10 can't export a cache; buildah 1.28 exports the layers it would push",
    )


def import_into_nothing(bench: Bench) -> Benchmark:
    """Build on a machine that has the base image alone, from a cache in a registry."""
    if bench.registry is None:
        return _impossible("cache-import")
    context = large_context(bench, "cache-import")
    ref = bench.registry.reset().name("bench/cache")
    words = ("build", "--quiet", "--network=host", "--tls-verify=false", "--tag", "cache-import")
    bench.tierce(*words, "--cache-to", f"type=registry,ref={ref},mode=max", context)
    roots: list[Path] = []

    def fresh_root() -> None:
        roots.append(bench.scratch / f"import-{bench.unique()}")
        Tierce(roots[-1])("load", "--input", busybox.image())

    found = [
        Contender(
            "tierce, imported",
            lambda: Tierce(roots[-1])(*words, "--cache-from", f"type=registry,ref={ref}", context),
            fresh_root,
        ),
        Contender("tierce, cold", lambda: Tierce(roots[-1])(*words, context), fresh_root),
    ]
    return Benchmark("cache-import", "build two stages in a store that has the base image alone", tuple(found))


def _impossible(name: str) -> Benchmark:
    return Benchmark(name, "not measured: needs docker-registry", ())
