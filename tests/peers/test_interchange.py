"""Images go between Tierce and the other tools, by archive, by layout and by registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.compare import differences
from tests.support.context import File, write_context
from tests.support.dockerd import Docker
from tests.support.image_tree import docker_archive, oci_layout
from tests.support.podman import Podman
from tests.support.process import command, need
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.peer]

DOCKERFILE = """\
FROM busybox
RUN mkdir /made && echo "made in a sandbox" > /made/file && ln /made/file /made/hard && chmod 4750 /made/file
RUN rm /made/hard /bin/vi
ENV GREETING=hello
CMD ["cat", "/made/file"]
"""
SAID = "made in a sandbox\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path / "context", {"Dockerfile": File(DOCKERFILE)})


@pytest.fixture
def built(tierce_with_busybox: Tierce, context: Path) -> Tierce:
    """Tierce with an image called ``made`` that it built."""
    tierce_with_busybox("build", "--quiet", "--network=host", "--tag", "made", context)
    return tierce_with_busybox


def test_docker_loads_and_runs_what_tierce_saved(built: Tierce, docker: Docker, tmp_path: Path) -> None:
    built("save", "--output", tmp_path / "made.tar", "made")
    assert "Loaded image: made:latest" in docker("load", "--input", tmp_path / "made.tar")
    assert docker.run("made") == SAID


def test_podman_loads_and_runs_what_tierce_saved(built: Tierce, podman_and_buildah: Podman, tmp_path: Path) -> None:
    built("save", "--output", tmp_path / "made.tar", "made")
    podman_and_buildah("load", "--input", tmp_path / "made.tar")
    assert podman_and_buildah.run("made") == SAID


def test_tierce_loads_and_runs_what_docker_saved(tierce: Tierce, docker: Docker, context: Path, tmp_path: Path) -> None:
    docker.build("from-docker", context)
    docker("save", "--output", tmp_path / "made.tar", "from-docker")
    tierce("load", "--input", tmp_path / "made.tar")
    assert tierce("run", "--rm", "--network=none", "from-docker").stdout == SAID


def test_skopeo_reads_the_root_itself_as_a_layout(built: Tierce) -> None:
    told = json.loads(command([need("skopeo"), "inspect", f"oci:{built.root}:made:latest"]))
    assert len(told["Layers"]) == 3
    assert "GREETING=hello" in told["Env"]


def test_skopeo_finds_the_digest_that_tierce_tells(built: Tierce, tmp_path: Path) -> None:
    built("copy", "made", f"oci:{tmp_path}/layout:made")
    told = json.loads(command([need("skopeo"), "inspect", f"oci:{tmp_path}/layout:made"]))
    assert built("images", "--no-trunc", "--format", "{{.Digest}}", "made").stdout.strip() == told["Digest"]


Pull = Callable[[str, Path], Path]


@pytest.fixture(params=["docker", "podman", "skopeo"])
def peer_pull(request: pytest.FixtureRequest) -> Pull:
    """How a peer pulls a name and saves it as a docker-archive."""
    if request.param == "skopeo":
        skopeo = need("skopeo")

        def pull(name: str, saved: Path) -> Path:
            command([skopeo, "copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{saved}:{name}"])
            return saved
    elif request.param == "docker":
        docker: Docker = request.getfixturevalue("docker")

        def pull(name: str, saved: Path) -> Path:
            docker("pull", "--quiet", name)
            docker("save", "--output", saved, name)
            return saved
    else:
        podman: Podman = request.getfixturevalue("podman_and_buildah")

        def pull(name: str, saved: Path) -> Path:
            podman("pull", "--quiet", "--tls-verify=false", name)
            podman("save", "--quiet", "--format", "docker-archive", "--output", saved, name)
            return saved

    return pull


def test_peers_pull_what_tierce_pushed(built: Tierce, open_registry: Registry, peer_pull: Pull, tmp_path: Path) -> None:
    name = open_registry.name("pushed/by-tierce:1")
    built("tag", "made", name)
    built("push", name)
    built("save", "--output", tmp_path / "ours.tar", "made")
    pulled = peer_pull(name, tmp_path / "theirs.tar")
    assert differences(docker_archive(tmp_path / "ours.tar"), docker_archive(pulled), mtimes=True) == []


@pytest.mark.parametrize("peer", ["docker", "buildah"])
def test_tierce_pulls_what_peers_pushed(
    peer: str, request: pytest.FixtureRequest, tierce: Tierce, open_registry: Registry, context: Path, tmp_path: Path
) -> None:
    name = open_registry.name(f"pushed/by-{peer}:1")
    if peer == "docker":
        docker: Docker = request.getfixturevalue("docker")
        docker.build(name, context)
        docker("push", "--quiet", name)
    else:
        podman: Podman = request.getfixturevalue("podman_and_buildah")
        podman.build(name, context)
        podman.buildah("push", "--quiet", "--tls-verify=false", name)
    tierce("pull", name)
    assert tierce("run", "--rm", "--network=none", name).stdout == SAID
    tierce("save", "--output", tmp_path / "ours.tar", name)
    command([need("skopeo"), "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/theirs:x"])
    ours, theirs = docker_archive(tmp_path / "ours.tar"), oci_layout(tmp_path / "theirs", "x")
    assert differences(theirs, ours, mtimes=True) == []


def test_digest_is_the_same_everywhere(built: Tierce, open_registry: Registry, tmp_path: Path) -> None:
    """Pushed, copied to a layout, copied from registry to registry's name, pulled into a second root."""
    name = open_registry.name("digests/made:1")
    built("copy", "made", f"docker://{name}")
    built("copy", f"docker://{name}", f"oci:{tmp_path}/layout:made")
    built("copy", f"docker://{name}", f"docker://{open_registry.name('digests/again:1')}")
    second = Tierce(tmp_path / "second")
    second("pull", open_registry.name("digests/again:1"))

    def digest_in(tierce: Tierce, image: str) -> str:
        return tierce("images", "--no-trunc", "--format", "{{.Digest}}", image).stdout.strip()

    (entry,) = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert digest_in(built, "made") == entry["digest"] == digest_in(second, open_registry.name("digests/again:1"))
