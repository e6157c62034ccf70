"""One Dockerfile, two builders, one result: Tierce against docker's BuildKit, or Buildah."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.compare import differences
from tests.support.context import write_context
from tests.support.dockerd import Docker
from tests.support.dockerfiles import CASES, Case
from tests.support.image_tree import Image, docker_archive
from tests.support.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.peer]

EXAMPLES = Path(__file__).parents[2] / "Dockerfile.examples"


def built_by_tierce(tierce: Tierce, context: Path, saved: Path, *options: str) -> Image:
    tierce("build", "--quiet", "--network=host", "--tag", "compared", *options, context)
    tierce("save", "--output", saved, "compared")
    return docker_archive(saved)


def built_by_docker(docker: Docker, context: Path, saved: Path, *options: str) -> Image:
    docker.build("compared", context, *options)
    docker("save", "--output", saved, "compared")
    return docker_archive(saved)


def built_by_buildah(podman: Podman, context: Path, saved: Path, *options: str) -> Image:
    podman.build("compared", context, *options)
    podman("save", "--format", "docker-archive", "--output", saved, "compared")
    image = docker_archive(saved)
    image.config["config"].pop("Labels")  # io.buildah.version, which only Buildah adds
    return image


@pytest.mark.parametrize("case", [case for case in CASES if case.judge == "docker"], ids=lambda case: case.name)
def test_same_as_docker(case: Case, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", case.entries())
    theirs = built_by_docker(docker, context, tmp_path / "theirs.tar", *case.flags(context))
    ours = built_by_tierce(tierce_with_busybox, context, tmp_path / "ours.tar", *case.flags(context))
    assert differences(theirs, ours) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.judge == "buildah"], ids=lambda case: case.name)
def test_same_as_buildah(case: Case, podman_and_buildah: Podman, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", case.entries())
    theirs = built_by_buildah(podman_and_buildah, context, tmp_path / "theirs.tar", *case.flags(context))
    ours = built_by_tierce(tierce_with_busybox, context, tmp_path / "ours.tar", *case.flags(context))
    ours.config["config"].pop("ArgsEscaped", None)  # Buildah does not write it
    assert differences(theirs, ours) == []


@pytest.mark.parametrize("name", ["hello", "site"])
def test_same_example_as_docker(name: str, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    theirs = built_by_docker(docker, EXAMPLES / name, tmp_path / "theirs.tar")
    ours = built_by_tierce(tierce_with_busybox, EXAMPLES / name, tmp_path / "ours.tar")
    assert differences(theirs, ours) == []
