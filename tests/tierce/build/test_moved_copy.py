"""A copy is linked from an earlier build with another base, where the base can't matter; else it is done again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.context import File, write_context

pytestmark = pytest.mark.root


def build(tierce: Tierce, context: Path, before: str, copy: str, *options: str) -> list[str]:
    """The layers of an image; with a source date epoch, times don't tell them apart."""
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {before}\n{copy}\nRUN find / -name old 2>/dev/null; true\n")
    epoch = ("--build-arg", "SOURCE_DATE_EPOCH=1")
    tierce("build", "--network=none", *epoch, *options, "--tag", "built", context)
    layers: list[str] = json.loads(tierce("inspect", "--format", "{{json .RootFS.Layers}}", "built").stdout)
    return layers


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"src/a": File("a\n"), "src/sub/b": File("b\n"), "src/sub/deep/c": File("c\n")}
    path = write_context(tmp_path / "context", files)
    os.link(path / "src" / "a", path / "src" / "also-a")
    os.symlink("a", path / "src" / "link")
    return path


def inodes(tierce: Tierce, path: str = "sub/b") -> list[int]:
    """Of the copied file in every layer directory that has it."""
    return [found.lstat().st_ino for found in (tierce.root / "overlay2").glob(f"*/diff/*/{path}")]


@pytest.mark.parametrize(
    ("first", "then", "copy", "moves"),
    [
        ("echo 1 > /x", "echo 2 > /x", "COPY src /app", True),
        ("echo 1 > /x", "echo 2 > /x", "COPY --chown=5:6 --chmod=700 src /app/", True),
        ("mkdir /app", "mkdir /app /other", "COPY src /app", True),
        ("mkdir -m 755 /app", "mkdir -m 700 /app", "COPY src /app", False),
        ("mkdir /app", "true", "COPY src /app", False),
        ("mkdir -p /app/sub/old", "mkdir /app", "COPY src /app", False),
        ("mkdir /app; touch /app/a", "mkdir /app", "COPY src /app", False),
        ("mkdir /one /two; ln -s one /app", "mkdir /one /two; ln -s two /app", "COPY src /app", False),
        ("echo u:x:5:5::/: >> /etc/passwd", "echo u:x:6:6::/: >> /etc/passwd", "COPY --chown=u src /app", False),
        ("echo 1 > /x", "echo 2 > /x", "COPY --link src /app", False),
    ],
    ids=[
        "elsewhere", "numeric-owner", "into-the-same-directory", "another-mode", "missing", "directory-merged",
        "file-replaced", "symlink", "user-by-name", "linked",
    ],
)  # fmt: skip
def test_a_copy_on_another_base(
    tierce_with_busybox: Tierce, context: Path, first: str, then: str, copy: str, moves: bool
) -> None:
    tierce = tierce_with_busybox
    build(tierce, context, first, copy)
    found = build(tierce, context, then, copy)
    links = inodes(tierce, "link")  # no copy that is done again makes one name more for a symbolic link
    linked = len(links) - len(set(links))
    assert bool(linked) == moves
    assert build(tierce, context, then, copy, "--no-cache") == found
    tierce("system", "check")


def test_what_was_linked_outlives_where_it_came_from(tierce_with_busybox: Tierce, context: Path) -> None:
    tierce = tierce_with_busybox
    build(tierce, context, "echo 1 > /x", "COPY src /app")
    build(tierce, context, "echo 2 > /x", "COPY src /app")
    tierce("builder", "prune", "--all", "--force")
    tierce("image", "prune", "--force")
    assert len(inodes(tierce)) == 1
    shown = tierce("run", "--rm", "--network=none", "built", "sh", "-c", "cd /app; cat a link sub/b sub/deep/c also-a")
    assert shown.stdout == "a\na\nb\nc\na\n"
    tierce("system", "check")


def test_a_changed_file_is_copied_again(tierce_with_busybox: Tierce, context: Path) -> None:
    tierce = tierce_with_busybox
    build(tierce, context, "echo 1 > /x", "COPY src /app")
    (context / "src" / "sub" / "b").write_text("changed\n")
    build(tierce, context, "echo 2 > /x", "COPY src /app")
    assert tierce("run", "--rm", "--network=none", "built", "cat", "/app/sub/b").stdout == "changed\n"
    assert len(set(inodes(tierce))) == 2
