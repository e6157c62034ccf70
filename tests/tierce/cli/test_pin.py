"""``tierce pin`` against a registry on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image.manifest import Index
from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.tiny_image import ARM64, tiny_image

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def index(fake: FakeRegistry) -> Index:
    """An image for two platforms: ``base:1`` and ``base:latest``."""
    found = Index.build([tiny_image().descriptor, tiny_image(platform=ARM64).descriptor])
    fake.add_manifest("base", "1", found)
    fake.add_manifest("base", "latest", found)
    return found


def test_pin_check_and_undo(invoke: Invoke, fake: FakeRegistry, index: Index, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    text = f"FROM {fake.host}/base  AS x\nCOPY --from={fake.host}/base:1 / /\n"
    one.write_text(text)
    two.write_text("FROM scratch\n")
    assert invoke("pin", "--check", str(one), str(two)) == (
        1, f"{one}:1: {fake.host}/base is not pinned\n{one}:2: {fake.host}/base:1 is not pinned\n", "",
    )  # fmt: skip
    code, out, _ = invoke("pin", "--dry-run", str(one), str(two))
    assert (code, one.read_text()) == (0, text)
    assert out.splitlines()[0] == f"{one}:1: {fake.host}/base -> {fake.host}/base@{index.digest}"
    assert invoke("pin", str(one), str(two)) == (0, out, "")
    assert one.read_text() == text.replace("base ", f"base@{index.digest} ").replace("base:1", f"base:1@{index.digest}")
    assert invoke("pin", "--check", str(one), str(two)) == (0, "", "")
    assert len(fake.seen("HEAD .*/manifests/latest")) == 2, "once a command, not once a mention"
    assert invoke("pin", "--undo", str(one))[0] == 0
    assert one.read_text() == text


def test_update_follows_the_tag(invoke: Invoke, fake: FakeRegistry, index: Index, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(f"FROM {fake.host}/base:1@{index.digest}\n")
    image = tiny_image({"other": b"1"}).manifest
    fake.add_manifest("base", "1", image)
    assert invoke("pin", str(file)) == (0, "", "")
    assert invoke("pin", "--update", str(file))[0] == 0
    assert file.read_text() == f"FROM {fake.host}/base:1@{image.digest}\n"


def test_nothing_is_written_when_one_image_is_missing(
    invoke: Invoke, fake: FakeRegistry, index: Index, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"FROM {fake.host}/base\n")
    two.write_text(f"FROM scratch\nCOPY --from={fake.host}/absent / /\n")
    code, out, err = invoke("pin", str(one), str(two))
    assert (code, out) == (1, "")
    assert f"{two}:2: image {fake.host}/absent:latest not found in its registry" in err
    assert f"   2 | >>> COPY --from={fake.host}/absent / /" in err
    assert one.read_text() == f"FROM {fake.host}/base\n"
    assert invoke("pin", "--ignore", f"{fake.host}/absent", str(one), str(two))[0] == 0
    assert str(index.digest) in one.read_text()


def test_names_of_arguments_are_left_alone_and_said_so(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("ARG B=busybox\nFROM $B\n")
    expected = f"{file}:2: $B is left alone: an ARG is part of its name\n"
    assert invoke("pin", str(file)) == (0, "", expected)
    assert invoke("pin", "--check", str(file))[0] == 1


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["absent"], 1, "failed to read dockerfile: absent: no such file"),
        (["."], 1, ". is not a regular file: name a Dockerfile"),
        (["--undo", "--check", "x"], 1, "mutually exclusive"),
    ],
    ids=["absent", "directory", "two modes"],
)
def test_wrong_input(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = invoke("pin", *words)
    assert (found, out) == (code, "")
    assert problem in err
