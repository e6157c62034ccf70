"""When some files of a copy changed, the others are linked from its earlier layer; the image is the same as ever."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.context import File, write_context

pytestmark = pytest.mark.root

CHANGED, KEPT = "sub/changed", "sub/kept"


class Project:
    """A context, and the images that are built from it one after another."""

    def __init__(self, tierce: Tierce, context: Path) -> None:
        self.tierce = tierce
        self.source = context / "src"
        self.copy = "COPY src /"

    def build(self, *options: str) -> list[str]:
        """The layers of the image, after the files' times have settled."""
        time.sleep(0.1)
        (self.source.parent / "Dockerfile").write_text(f"FROM busybox\n{self.copy}\n")
        self.tierce("build", *options, "--tag", "built", self.source.parent)
        layers: list[str] = json.loads(self.tierce("inspect", "--format", "{{json .RootFS.Layers}}", "built").stdout)
        return layers

    def copies(self, path: str) -> tuple[int, int]:
        """In how many layers the path is, and how many files these are."""
        found = [copy.lstat().st_ino for copy in (self.tierce.root / "overlay2").glob(f"*/diff/{path}")]
        return len(found), len(set(found))


@pytest.fixture
def project(tierce_with_busybox: Tierce, tmp_path: Path) -> Project:
    files = {f"src/{name}": File(f"{name}\n", mode=0o640) for name in (CHANGED, KEPT, "sub/deep/kept", "top")}
    return Project(tierce_with_busybox, write_context(tmp_path / "context", files))


def rewrite(path: Path) -> None:
    path.write_text("new words\n")


def replace_with_the_same_times(path: Path) -> None:
    before = path.stat()
    beside = path.with_name("beside")
    beside.write_text(path.read_text().upper())
    beside.chmod(0o640)
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.rename(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("kept")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": rewrite,
    "replaced": replace_with_the_same_times,
    "mode": lambda path: path.chmod(0o755),
    "attribute": lambda path: os.setxattr(path, "user.words", b"new"),
    "removed": lambda path: path.unlink(),
    "a-second-name": lambda path: os.link(path, path.with_name("second")),
    "a-directory": become_a_directory,
    "a-symlink": become_a_symlink,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("copy", ["COPY src /", "COPY --link --chown=3:4 --chmod=u+x src /"], ids=["plain", "linked"])
def test_what_changed_is_copied_and_the_rest_linked(
    project: Project, change: Callable[[Path], object], copy: str
) -> None:
    project.copy = copy
    before = project.build()
    change(project.source / CHANGED)
    after = project.build()
    assert before != after
    assert project.copies(KEPT) == project.copies("sub/deep/kept") == (2, 1)
    assert len(set(project.copies(CHANGED))) == 1
    assert project.build("--no-cache") == after
    project.tierce("system", "check")


def test_a_moved_copy_serves_as_well(project: Project) -> None:
    project.build()
    project.copy = "RUN echo 1 > /x\nCOPY src /"
    project.build("--network=none")
    rewrite(project.source / CHANGED)
    project.build("--network=none")
    assert project.copies(KEPT) == (3, 1)
    assert project.copies(CHANGED) == (3, 2)


def test_a_damaged_earlier_layer_is_not_taken_from(project: Project) -> None:
    project.build()
    [copied] = (project.tierce.root / "overlay2").glob(f"*/diff/{KEPT}")
    os.truncate(copied, 0)
    rewrite(project.source / CHANGED)
    after = project.build()
    assert project.build("--no-cache") == after


def test_what_was_linked_outlives_the_earlier_layer(project: Project) -> None:
    project.build()
    rewrite(project.source / CHANGED)
    project.build()
    project.tierce("builder", "prune", "--all", "--force")
    project.tierce("image", "prune", "--force")
    shown = project.tierce("run", "--rm", "--network=none", "built", "sh", "-c", f"cat /{KEPT} /{CHANGED}")
    assert shown.stdout == f"{KEPT}\nnew words\n"
    assert project.copies(KEPT) == (1, 1)


def test_without_the_cache_nothing_is_linked(project: Project) -> None:
    project.build()
    rewrite(project.source / CHANGED)
    project.build("--no-cache")
    assert project.copies(KEPT) == (2, 2)
