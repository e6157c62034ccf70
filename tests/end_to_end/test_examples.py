"""Each of Dockerfile.examples is built by Tierce and does what its README line says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.fetch import fetch
from tests.support.process import free_port

pytestmark = pytest.mark.root

EXAMPLES = Path(__file__).parents[2] / "Dockerfile.examples"


def served(tierce: Tierce, image: str, port: int, path: str) -> str:
    """What a container of ``image`` answers on its ``port``, published on loopback."""
    published = free_port()
    with tierce.foreground("run", "--rm", "-p", f"127.0.0.1:{published}:{port}", image) as process:
        return fetch(f"http://127.0.0.1:{published}/{path}", alive=lambda: process.poll() is None)


def test_hello(tierce_with_busybox: Tierce) -> None:
    tierce_with_busybox("build", "--tag", "hello", EXAMPLES / "hello")
    said = tierce_with_busybox("run", "--rm", "--network=none", "hello", "Tierce").stdout
    assert said == "Hello, Tierce, from an image of two files.\n"


def test_site(tierce_with_busybox: Tierce) -> None:
    tierce_with_busybox("build", "--tag", "site", "--build-arg", "TITLE=Pages", EXAMPLES / "site")
    assert "<h1>Pages</h1>" in served(tierce_with_busybox, "site", 8080, "index.html")


@pytest.fixture
def tierce_with_debian(tierce_with_busybox: Tierce, debian_archive: Path) -> Tierce:
    tierce_with_busybox("load", "--input", debian_archive)
    return tierce_with_busybox


@pytest.mark.network
@pytest.mark.slow
def test_c_multistage(tierce_with_debian: Tierce) -> None:
    tierce_with_debian("build", "--tag", "primes", "--build-arg", "VERSION=1.2", EXAMPLES / "c-multistage")
    said = tierce_with_debian("run", "--rm", "--network=none", "primes", "30").stdout
    assert said == "primes 1.2: 2 3 5 7 11 13 17 19 23 29\n"


@pytest.mark.network
@pytest.mark.slow
def test_python_web(tierce_with_debian: Tierce) -> None:
    tierce_with_debian("build", "--tag", "web", EXAMPLES / "python-web")
    assert json.loads(served(tierce_with_debian, "web", 8000, "health")) == {"status": "ok", "uid": 10001}


@pytest.mark.network
@pytest.mark.slow
def test_node_frontend(tierce_with_debian: Tierce) -> None:
    tierce_with_debian("build", "--tag", "front", EXAMPLES / "node-frontend")
    assert "<em>Markdown</em>" in served(tierce_with_debian, "front", 8080, "index.html")
