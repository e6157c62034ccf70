"""Fixtures for all tests: base images, private peers, a fresh Tierce, and a look for leftovers."""

from __future__ import annotations

import functools
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import busybox, debian
from tests.support import leftovers
from tests.support.cli import Tierce
from tests.support.dockerd import Docker, dockerd
from tests.support.podman import Podman, podman
from tests.support.process import need
from tests.support.registry import Registry, registry


def pytest_sessionstart() -> None:
    # A script's "&" leaves SIGINT ignored, and what is ignored is inherited: tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leftovers.adopt_orphans()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    if item.get_closest_marker("network") and not _reaches("deb.debian.org"):
        pytest.skip("needs Debian's archive at deb.debian.org")


@functools.cache
def _reaches(host: str) -> bool:
    try:
        socket.create_connection((host, 80), timeout=10).close()
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a test marked ``root`` that leaves a mount, process, interface, table, cgroup or file."""
    if request.node.get_closest_marker("root") is None:
        yield
        return
    places = [tmp_path_factory.getbasetemp()]
    before = leftovers.snapshot(places)
    yield
    assert leftovers.leftovers(before, places) == []


@pytest.fixture(scope="session")
def busybox_archive() -> Path:
    """busybox:latest as a docker-archive."""
    return busybox.image()


@pytest.fixture(scope="session")
def debian_archive() -> Path:
    """debian:bookworm-slim as a docker-archive."""
    need("mmdebstrap")
    return debian.image()


@pytest.fixture
def tierce(tmp_path: Path) -> Tierce:
    """Tierce with an empty root."""
    return Tierce(tmp_path / "tierce")


@pytest.fixture
def tierce_with_busybox(tierce: Tierce, busybox_archive: Path) -> Tierce:
    """Tierce with busybox:latest in its root."""
    tierce("load", "--input", busybox_archive)
    return tierce


@pytest.fixture(scope="session")
def peers_directory() -> Iterator[Path]:
    """Where peers keep their data: gone after the session, as pytest's own directories are not."""
    with tempfile.TemporaryDirectory(prefix="tierce-peers-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def docker(peers_directory: Path, busybox_archive: Path) -> Iterator[Docker]:
    """A private docker daemon that has busybox:latest."""
    with dockerd(peers_directory / "docker") as client:
        client("load", "--input", busybox_archive)
        yield client


@pytest.fixture(scope="session")
def podman_and_buildah(peers_directory: Path, busybox_archive: Path) -> Iterator[Podman]:
    """Podman and Buildah with a private storage that has busybox:latest."""
    with podman(peers_directory / "podman") as client:
        client("load", "--input", busybox_archive)
        yield client


@pytest.fixture(scope="session")
def open_registry(peers_directory: Path) -> Iterator[Registry]:
    """A registry on loopback that asks for no password; tests choose names of their own."""
    with registry(peers_directory / "registry") as running:
        yield running
