"""Contexts that are no directory: docker and Tierce make the same of them.

Docker 20.10 takes a repository's default branch to be master, and knows no subdirectories.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.compare import differences
from tests.support.dockerd import Docker
from tests.support.git import Repository, git_daemon
from tests.support.image_tree import Image, docker_archive
from tests.support.web import Page, Web, web

pytestmark = [pytest.mark.root, pytest.mark.peer]

FILES = {
    "Dockerfile": "FROM busybox\nCOPY . /all/\nCOPY sub /sub/\n",
    "other/Dockerfile": "FROM busybox\nCOPY sub/f /other\n",
    "sub/f": "1\n",
    "sub/Dockerfile": "FROM busybox\nCOPY f /from-sub\n",
    ".dockerignore": "sub/g\n",
    "sub/g": "ignored?\n",
}


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.mode = len(text), 7, 0o640
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as running:
        running.pages |= {
            "/c.tar": Page(archive(), etag='"1"'),
            "/c.tgz": Page(gzip.compress(archive()), etag='"2"'),
            "/Dockerfile": Page(b"FROM busybox\nLABEL from=url\n", etag='"3"'),
        }
        yield running


@pytest.fixture
def git(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "git").mkdir()
    repository = Repository.create(tmp_path / "git")
    repository.commit(FILES)
    repository.git("tag", "v1")
    repository.git("push", "-q", "origin", "v1")
    repository.commit({"sub/f": "2\n"})
    with git_daemon(tmp_path / "git", tmp_path / "log") as url:
        yield f"{url}/app.git"


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (["-"], "tar"), (["-"], "tgz"), (["-f", "other/Dockerfile", "-"], "tar"), (["-"], "Dockerfile"),
        (["URL/c.tar"], ""), (["URL/c.tgz"], ""), (["-f", "other/Dockerfile", "URL/c.tgz"], ""), (["URL/Dockerfile"], ""),
        (["GIT#main"], ""), (["GIT#v1"], ""), (["-f", "other/Dockerfile", "GIT#v1"], ""),
    ],
)  # fmt: skip
def test_same_image(
    words: list[str], stdin: str, server: Web, git: str, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path
) -> None:
    given = {"tar": archive(), "tgz": gzip.compress(archive()), "Dockerfile": b"FROM busybox\nLABEL a=b\n", "": b""}[
        stdin
    ]
    words = [word.replace("URL", server.url("")).replace("GIT", git) for word in words]
    images: list[Image] = []
    for program, environment in (
        ([docker.client], dict(docker.environment)),
        (list(tierce_with_busybox.argv()), tierce_with_busybox.env()),
    ):
        saved = tmp_path / f"{len(images)}.tar"
        for argv, data in (
            (["build", "-q", "-t", "compared", *words], given),
            (["save", "-o", str(saved), "compared"], b""),
        ):
            done = subprocess.run([*program, *argv], input=data, env=environment, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode()
        images.append(docker_archive(saved))
    assert differences(*images) == []
