"""Mirroring: two hundred tags of one repository from one place of a registry to another."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from random import Random

from benchmarks.measure import Benchmark, Contender
from benchmarks.peers import Bench
from tests.support.process import command
from tests.support.tiny_image import TinyImage, tiny_image

TAGS = 200
_FLAGS = ("--src", "docker", "--dest", "docker", "--src-tls-verify=false", "--dest-tls-verify=false")


def sync(bench: Bench) -> Benchmark:
    """Tags that the target does not have: one shared layer of 2 MB, one of 200 kB for each."""
    return _benchmark(bench, "sync", f"sync {TAGS} tags to a place that has none", f"to-{bench.unique()}-{{}}")


def sync_again(bench: Bench) -> Benchmark:
    """The same when nothing has changed."""
    return _benchmark(bench, "sync-again", f"sync {TAGS} unchanged tags", "kept", warm=True)


def _benchmark(bench: Bench, name: str, title: str, target: str, *, warm: bool = False) -> Benchmark:
    if bench.registry is None or bench.skopeo is None:
        return Benchmark(name, "not measured: needs docker-registry and skopeo", ())
    host = bench.registry.reset().host
    _fill(host, "source/app")
    skopeo = [str(bench.skopeo), "sync", "--all"]
    found = []
    ways: tuple[tuple[str, Callable[..., object]], ...] = (
        ("tierce", lambda *words: bench.tierce("sync", "--quiet", *words)),
        ("skopeo", lambda *words: command([*skopeo, *words])),
    )
    for who, run in ways:
        places = [""]

        def next_place(places: list[str] = places, who: str = who) -> None:
            places.append(f"{host}/{who}/{target.format(len(places))}")

        def once(run: Callable[..., object] = run, places: list[str] = places) -> None:
            run(*_FLAGS, f"{host}/source/app", places[-1])

        if warm:
            next_place()
            once()
        found.append(Contender(who, once, next_place))
    return Benchmark(name, title, tuple(found))


def _fill(host: str, repository: str) -> None:
    """Push the images with plain requests, so that the one who measures warms nothing up for anyone."""
    connection = http.client.HTTPConnection(host)
    base = {"base": Random(0).randbytes(2_000_000)}  # incompressible, the same each time
    for number in range(TAGS):
        image = tiny_image(base, {"own": Random(number + 1).randbytes(200_000)})
        _push(connection, repository, f"1.{number}", image)
    connection.close()


def _push(connection: http.client.HTTPConnection, repository: str, tag: str, image: TinyImage) -> None:
    for digest, data in image.blobs.items():
        location = _request(connection, "POST", f"/v2/{repository}/blobs/uploads/", b"", "")
        _request(connection, "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", data, "")
    _request(connection, "PUT", f"/v2/{repository}/manifests/{tag}", image.manifest.raw, image.manifest.media_type)


def _request(connection: http.client.HTTPConnection, method: str, url: str, body: bytes, kind: str) -> str:
    connection.request(method, url, body, {"Content-Type": kind or "application/octet-stream"})
    reply = connection.getresponse()
    reply.read()
    assert reply.status in {201, 202}, (method, url, reply.status)
    return reply.headers.get("Location", "")
