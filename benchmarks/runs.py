"""Starting things: a container that ends at once, and the command lines themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench
from fixtures import busybox
from tests.support.process import command


def run_true(bench: Bench) -> Benchmark:
    """``run --rm --network none busybox true``, and the same by bare runc."""
    tierce, docker, podman, runc = bench.tierce, bench.docker, bench.podman, bench.runc
    found = [Contender("tierce", lambda: tierce("run", "--rm", "--network=none", "busybox", "true"))]
    if docker:
        found.append(Contender("docker", lambda: docker.run("busybox", "true")))
    if podman:
        found.append(Contender("podman", lambda: podman.run("busybox", "true")))
    if runc:
        bundle = _bundle(bench.scratch / "bundle", runc)
        state = bench.scratch / "runc"
        found.append(
            Contender("runc alone", lambda: command([runc, "--root", state, "run", "--bundle", bundle, bench.unique()]))
        )
    return Benchmark(
        "run-true", "run --rm --network none busybox true", tuple(found), "runc has its root file system ready"
    )


def runtime_run(bench: Bench) -> Benchmark:
    """``tierce-runtime run`` of a bundle beside ``runc run`` of the same."""
    found = [Contender(name, _run_of(bench, program)) for name, program in _runtimes(bench)]
    return Benchmark("runtime-run", "run a bundle whose process is true", tuple(found))


def runtime_exec(bench: Bench) -> Benchmark:
    """One more process in a container that sleeps, by ``tierce-runtime exec`` and by ``runc exec``."""
    found = [Contender(name, _exec_of(bench, program)) for name, program in _runtimes(bench)]
    return Benchmark("runtime-exec", "exec true in a running container", tuple(found))


def _runtimes(bench: Bench) -> list[tuple[str, str]]:
    ours = ("tierce-runtime", str(Path(sys.executable).with_name("tierce-runtime")))
    return [ours, ("runc", bench.runc)] if bench.runc else []


def _run_of(bench: Bench, program: str) -> Callable[[], object]:
    bundle, state = _bundle(bench.scratch / bench.unique(), program), bench.scratch / bench.unique()
    return lambda: command([program, "--root", state, "run", "--bundle", bundle, bench.unique()])


def _exec_of(bench: Bench, program: str) -> Callable[[], object]:
    """The container lives until the benchmarks end."""
    bundle, state, name = (
        _bundle(bench.scratch / bench.unique(), program),
        bench.scratch / bench.unique(),
        bench.unique(),
    )
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["process"]["args"] = ["sleep", "1000"]
    path.write_text(json.dumps(spec))
    started = [program, "--root", str(state), "run", "--detach", "--bundle", str(bundle), name]
    subprocess.run(started, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bench.at_end(lambda: command([program, "--root", state, "delete", "--force", name]))
    return lambda: command([program, "--root", state, "exec", name, "true"])


def start_up(bench: Bench) -> Benchmark:
    """How long each tool takes to say its version."""
    tools = {"docker": bench.docker, "podman": bench.podman, "buildah": bench.podman, "skopeo": bench.skopeo}
    found = [
        Contender("tierce", lambda: bench.tierce("--version")),
        Contender("python -I -S", lambda: command([sys.executable, "-I", "-S", "-c", "pass"])),
    ]
    found += [_version_of(name) for name, here in tools.items() if here]
    return Benchmark("start-up", "print the version", tuple(found), "python -I -S is the floor for any Python program")


def _version_of(name: str) -> Contender:
    return Contender(name, lambda: command([name, "--version"]))


def _bundle(bundle: Path, runc: str) -> Path:
    """An OCI bundle of busybox whose process is ``true``, with no network."""
    rootfs = bundle / "rootfs"
    rootfs.mkdir(parents=True)
    with tarfile.open(busybox.image()) as archive:
        layer = archive.extractfile(json.load(archive.extractfile("manifest.json") or sys.exit(1))[0]["Layers"][0])
        with tarfile.open(fileobj=layer) as tar:
            tar.extraction_filter = lambda member, _: member  # ours; older versions of Python have no filters
            tar.extractall(rootfs)
    command([runc, "spec", "--bundle", bundle])
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["process"] |= {"terminal": False, "args": ["true"], "rlimits": []}
    spec["hostname"] = "bench"
    path.write_text(json.dumps(spec))
    return bundle
