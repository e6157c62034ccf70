"""A mirror of a hundred images over connections and processes that fail: it ends equal to its source."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fixtures.registries import PLAIN, Emulator, emulate
from fixtures.registries.faults import after, dropped, lost, refused, sometimes, too_many_requests, truncated
from tests.support.cli import Tierce
from tests.support.tiny_image import ARM64, tiny_image, tiny_index

REPOSITORIES = 10
TAGS = 9
"""Images of one platform a repository, beside an index of two."""


@pytest.fixture
def source() -> Iterator[Emulator]:
    with emulate(PLAIN) as registry:
        for repository in range(REPOSITORIES):
            name = f"team/app{repository}"
            shared = {"shared": Random(repository).randbytes(100_000)}
            for number in range(TAGS):
                image = tiny_image(shared, {"own": f"{repository}.{number}".encode() * 5000})
                _add(registry, name, f"1.{number}", image)
            both = [tiny_image(shared), tiny_image(shared, {"arm": b"64"}, platform=ARM64)]
            for each in both:
                _add(registry, name, str(each.manifest.digest), each)
            index = tiny_index(both)
            registry.add_manifest(name, "all", index.media_type, index.raw)
        yield registry


def _add(registry: Emulator, repository: str, name: str, image: Any) -> None:
    registry.add_image(repository, name, image.manifest.media_type, image.manifest.raw, image.blobs)


@pytest.fixture
def target() -> Iterator[Emulator]:
    with emulate(PLAIN) as registry:
        yield registry


@pytest.fixture
def file(tmp_path: Path, source: Emulator, target: Emulator) -> Path:
    path = tmp_path / "sync.yml"
    path.write_text(
        f"""
creds: [{{registry: "{source.host}", tls: disabled}}, {{registry: "{target.host}", tls: disabled}}]
sync: [{{source: "{source.host}", target: "{target.host}", type: registry}}]
"""
    )
    return path


def whole(registry: Emulator) -> dict[str, dict[str, Any]]:
    """What is there by name: tags, and of each repository the manifests and blobs."""
    return {name: place for name, place in registry.content().items() if place["tags"]}


def sync(tierce: Tierce, file: Path) -> int:
    """Once; what it tells meanwhile stays one event a line, and its failure the last line."""
    done = tierce.attempt("sync", "-c", file, "--retry-delay", "1ms", "--jobs", "4", "--log-format", "json")
    *events, last = done.stderr.splitlines()
    for line in events if done.code else [*events, last]:
        assert json.loads(line)["event"], line
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return done.code


def assert_nothing_is_named_that_is_not_whole(source: Emulator, target: Emulator) -> None:
    """At any moment: what a tag of the target names is the source's, to the last blob."""
    wanted, found = whole(source), whole(target)
    for name, place in found.items():
        for tag, digest in place["tags"].items():
            assert wanted[name]["tags"][tag] == digest
            assert place["manifests"][digest] == wanted[name]["manifests"][digest]


def test_connections_that_fail(tierce: Tierce, file: Path, source: Emulator, target: Emulator) -> None:
    random = Random(7)
    going_down = [dropped(), too_many_requests("1"), refused(500), refused(503), truncated(300), after(_dawdle)]
    going_up = [dropped(), lost(), too_many_requests(), refused(500), refused(502), after(_dawdle)]
    source.on(".", sometimes(random, 0.08, going_down), times=1_000_000)
    target.on(".", sometimes(random, 0.08, going_up), times=1_000_000)
    for _ in range(20):
        code = sync(tierce, file)
        assert_nothing_is_named_that_is_not_whole(source, target)
        if code == 0:
            break
    assert whole(target) == whole(source)


def _dawdle() -> None:
    time.sleep(0.02)


def test_processes_that_are_killed(tierce: Tierce, file: Path, source: Emulator, target: Emulator) -> None:
    for delay_s in (0.3, 0.5, 0.7, 0.9):
        process = tierce.start("sync", "-c", file, "--jobs", "2")
        time.sleep(delay_s)
        process.kill()
        process.communicate()
        assert_nothing_is_named_that_is_not_whole(source, target)
    assert sync(tierce, file) == 0
    assert whole(target) == whole(source)
