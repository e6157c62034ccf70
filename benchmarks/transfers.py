"""Transfers: a Debian image of some 120 MB to and from a registry on loopback."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack

from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench, FreshRegistry, installed_tierce
from fixtures import debian
from fixtures.registries.large import large_image
from tests.support.dockerd import Docker
from tests.support.podman import Podman
from tests.support.process import command

IMAGE = "debian:bookworm-slim"
LARGE = 2 << 30
"""Bytes of the one file in the large layer."""


def pull(bench: Bench) -> Benchmark:
    """Pull and unpack; each contender starts without the image."""
    if bench.registry is None or bench.skopeo is None or shutil.which("mmdebstrap") is None:
        return _impossible("pull")
    name = bench.registry.reset().name("bench/debian:1")
    _upload(bench, name)
    docker, podman = bench.docker, bench.podman
    roots = [bench.scratch / "none"]

    def fresh_root() -> None:
        roots.append(bench.scratch / f"pull-{bench.unique()}")

    found = [
        Contender("tierce", lambda: installed_tierce(roots[-1])("pull", "--quiet", name), fresh_root),
        Contender("skopeo to oci:", lambda: command(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{roots[-1]}-layout:x"]
        ), fresh_root),
    ]  # fmt: skip
    if docker:
        found.append(Contender("docker", lambda: docker("pull", "--quiet", name), lambda: _forget_debian(docker)))
    if podman:
        found.append(
            Contender(
                "podman", lambda: podman("pull", "--quiet", "--tls-verify=false", name), lambda: _forget_debian(podman)
            )
        )
    return Benchmark("pull", f"pull {IMAGE} from loopback", tuple(found), "skopeo does not unpack")


def push(bench: Bench) -> Benchmark:
    """Compress and upload to a registry that has nothing."""
    target = bench.registry
    if target is None or bench.skopeo is None or shutil.which("mmdebstrap") is None:
        return _impossible("push")
    archive = debian.image()
    tierce, docker, podman = bench.tierce, bench.docker, bench.podman

    def name() -> str:
        return target.running.name("bench/pushed:1")

    def tierce_ready() -> None:
        target.reset()
        tierce("tag", IMAGE, name())

    tierce.attempt("load", "--input", archive)
    compressing = ("copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}")
    found = [
        Contender("tierce", lambda: tierce("push", "--quiet", name()), tierce_ready),
        Contender("tierce, compressing now", lambda: tierce(*compressing, f"docker://{name()}"), target.reset),
        Contender("skopeo", lambda: command(
            ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name()}"]
        ), target.reset),
    ]  # fmt: skip
    if docker:
        docker("load", "--input", archive)

        def docker_ready() -> None:
            target.reset()
            docker("tag", IMAGE, name())

        found.append(Contender("docker", lambda: docker("push", "--quiet", name()), docker_ready))
    if podman:
        podman("load", "--quiet", "--input", archive)
        found.append(
            Contender(
                "podman",
                lambda: podman("push", "--quiet", "--tls-verify=false", IMAGE, f"docker://{name()}"),
                target.reset,
            )
        )
        found.append(
            Contender(
                "buildah",
                lambda: podman.buildah("push", "--quiet", "--tls-verify=false", IMAGE, f"docker://{name()}"),
                target.reset,
            )
        )
    return Benchmark(
        "push",
        f"push {IMAGE} to an empty registry on loopback",
        tuple(found),
        "tierce keeps layers compressed since it got them; compressing now, it reads the archive that skopeo reads",
    )


def copy(bench: Bench) -> Benchmark:
    """From one registry to another that has nothing."""
    return _copies(bench, "copy", empty=True)


def copy_again(bench: Bench) -> Benchmark:
    """The same when it is there already."""
    return _copies(bench, "copy-again", empty=False)


def _copies(bench: Bench, name: str, *, empty: bool) -> Benchmark:
    """Registry to registry; nothing is known of the target from a copy before, when it is empty."""
    if bench.registry is None or bench.skopeo is None or shutil.which("mmdebstrap") is None:
        return _impossible(name)
    source = bench.registry.reset().name("bench/debian:1")
    _upload(bench, source)
    target = FreshRegistry(bench.scratch / "registry-target")
    bench.at_end(target.close)

    def place(tool: str) -> str:
        return f"docker://{target.running.name(f'bench/{tool}:1')}"

    def tierce() -> None:
        bench.tierce("copy", "--quiet", f"docker://{source}", place("tierce"))

    def skopeo() -> None:
        insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
        command(["skopeo", "copy", "--quiet", *insecure, f"docker://{source}", place("skopeo")])

    if empty:
        found = (Contender("tierce", tierce, target.reset), Contender("skopeo", skopeo, target.reset))
    else:
        target.reset()
        found = (Contender("tierce", tierce), Contender("skopeo", skopeo))
    what = "that has nothing" if empty else "that has it"
    return Benchmark(name, f"copy {IMAGE} from a registry to another {what}, on loopback", found)


def copy_large(bench: Bench) -> Benchmark:
    """One layer of 2 GB from a registry to another."""
    return _large(bench, "copy-large", "copy one layer of 2 GB between registries", "docker://{host}/{tool}:1")


def download_large(bench: Bench) -> Benchmark:
    """One layer of 2 GB from a registry into a directory."""
    return _large(bench, "download-large", "copy one layer of 2 GB from a registry to dir:", "dir:{path}")


def _large(bench: Bench, name: str, work: str, place: str) -> Benchmark:
    """The registry sends zeros from a sparse file and forgets what it is sent, so that it costs little itself."""
    stack = ExitStack()
    image = stack.enter_context(large_image(bench.scratch / f"{name}-layer", LARGE))
    bench.at_end(stack.close)
    host = image.partition("/")[0]
    here = bench.scratch / name

    def to(tool: str) -> str:
        return place.format(host=host, tool=f"{tool}-{bench.unique()}", path=here)

    def clean() -> None:
        shutil.rmtree(here, ignore_errors=True)

    def hash_alone() -> None:
        hasher, zeros = hashlib.sha256(), bytes(1 << 20)
        for _ in range(LARGE >> 20):
            hasher.update(zeros)

    skopeo = ("--quiet", "--src-tls-verify=false", "--dest-tls-verify=false")
    found = [
        Contender("tierce", lambda: bench.tierce("copy", "--quiet", f"docker://{image}", to("tierce")), clean),
        Contender("sha256 on one core", hash_alone),
    ]
    if bench.skopeo:
        found.append(
            Contender("skopeo", lambda: command(["skopeo", "copy", *skopeo, f"docker://{image}", to("skopeo")]), clean)
        )
    return Benchmark(name, work, tuple(found), "the registry is a small program on the same two cores")


def _forget_debian(tool: Docker | Podman) -> None:
    """Remove the image under each of its names, so that no layer of it is left to be found."""
    listed = tool("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    names = [name for name in listed if "debian" in name or "/bench/" in name]
    if names:
        tool("image", "rm", "--force", *names)


def _upload(bench: Bench, name: str) -> None:
    source = f"docker-archive:{debian.image()}"
    command([str(bench.skopeo), "copy", "--quiet", "--dest-tls-verify=false", source, f"docker://{name}"])


def _impossible(name: str) -> Benchmark:
    return Benchmark(name, "not measured: needs docker-registry, skopeo and mmdebstrap", ())
