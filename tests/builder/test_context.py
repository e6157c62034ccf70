"""builder/context.py: a directory and its ignore file."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.context import Context
from image.errors import InvalidInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "docker").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    return root


def test_no_ignore_file(root: Path) -> None:
    assert not Context.load(root).rules


@pytest.mark.parametrize(
    ("files", "dockerfile", "expected"),
    [
        ([".dockerignore"], "Dockerfile", ".dockerignore"),
        ([".dockerignore", ".containerignore"], "Dockerfile", ".containerignore"),
        ([".dockerignore", ".containerignore", "Dockerfile.dockerignore"], "Dockerfile", "Dockerfile.dockerignore"),
        ([".dockerignore", "docker/app.dockerignore"], "docker/app", "docker/app.dockerignore"),
        ([".dockerignore", "app.dockerignore"], "docker/app", ".dockerignore"),
        ([".dockerignore", "docker/.dockerignore"], "docker/app", ".dockerignore"),
        ([".dockerignore", "docker/app.containerignore"], "docker/app", "docker/app.containerignore"),
    ],
)
def test_which_ignore_file_counts(root: Path, files: list[str], dockerfile: str, expected: str) -> None:
    for name in files:
        (root / name).write_text(f"from-{name.replace('/', '-')}\n")
    context = Context.load(root, root / dockerfile)
    assert [pattern.text for pattern in context.rules.patterns] == [f"from-{expected.replace('/', '-')}"]
    assert context.rules.file == Path(expected).name


def test_an_empty_one_beside_the_dockerfile_still_counts(root: Path) -> None:
    (root / ".dockerignore").write_text("*\n")
    (root / "Dockerfile.dockerignore").write_text("")
    assert not Context.load(root, root / "Dockerfile").rules


def test_an_explicit_ignore_file(root: Path, tmp_path: Path) -> None:
    (root / "Dockerfile.dockerignore").write_text("x")
    (tmp_path / "mine").write_text("y")
    assert Context.load(root, root / "Dockerfile", tmp_path / "mine").rules.excludes("y")
    with pytest.raises(InvalidInput, match="does not exist"):
        Context.load(root, None, tmp_path / "nope")


def test_errors_name_what_is_wrong(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a directory"):
        Context.load(tmp_path / "nope")
    (root / ".dockerignore").write_text("!")
    with pytest.raises(InvalidInput, match=r"error parsing \.dockerignore"):
        Context.load(root)
    (root / ".containerignore").mkdir()
    with pytest.raises(InvalidInput, match="can't be read"):
        Context.load(root)


def test_a_context_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read"), Context(tmp_path / "gone").open():
        pass
