"""``image.paths.Path`` is ``pathlib.Path`` in all that is asked of it."""

from __future__ import annotations

import copy
import os
import pathlib
import subprocess
import sys

import pytest

from image.paths import Path

TEXTS = ("a", "/", "/a", "/a/b", "a/", "a//b", "./a", "../a", "/a/../b", "a/.", ".", "", "/a/", "a.b", "...", "//a")


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_text_name_and_parent(text: str) -> None:
    ours, theirs = Path(text), pathlib.Path(text)
    assert type(ours) is not type(theirs)
    assert (str(ours), bytes(ours), os.fspath(ours)) == (str(theirs), bytes(theirs), os.fspath(theirs))
    assert (ours.name, str(ours.parent), ours.suffix, ours.parts) == (
        theirs.name, str(theirs.parent), theirs.suffix, theirs.parts,
    )  # fmt: skip
    assert str(ours.absolute()) == str(theirs.absolute())
    assert ours == theirs
    assert theirs == ours
    assert copy.deepcopy(ours) == ours


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("other", TEXTS)
def test_joined(text: str, other: str) -> None:
    assert str(Path(text) / other) == str(pathlib.Path(text) / other)
    assert str(text / Path(other)) == str(text / pathlib.Path(other))
    assert (Path(text) == Path(other)) == (pathlib.Path(text) == pathlib.Path(other))
    assert (Path(text) < Path(other)) == (pathlib.Path(text) < pathlib.Path(other))


def test_files(tmp_path: pathlib.Path) -> None:
    root = Path(str(tmp_path))
    deep = root / "a" / "b"
    with pytest.raises(FileNotFoundError):
        deep.mkdir()
    deep.mkdir(parents=True)
    deep.mkdir(exist_ok=True)
    with pytest.raises(FileExistsError):
        deep.mkdir()
    file = deep / "f"
    assert not file.exists()
    assert file.write_text("x\n") == 2
    assert (file.read_text(), file.read_bytes(), file.is_dir()) == ("x\n", b"x\n", False)
    with pytest.raises(FileExistsError):
        file.mkdir(exist_ok=True)
    moved = file.rename(deep / "g")
    assert list(deep.iterdir()) == [moved]
    assert list(root.rglob("g")) == [moved]  # pathlib's own
    moved.unlink()
    moved.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        moved.unlink()
    with pytest.raises(AttributeError, match="nonsense"):
        _ = root.nonsense  # type: ignore[attr-defined]


def test_usual_work_does_without_pathlib() -> None:
    program = (
        "import sys; from image.paths import Path; p = Path('/tmp') / 'a' / 'b.c'; "
        "print(p.name, p.parent, p.exists(), p == Path('/x'), 'pathlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "b.c /tmp/a False False False\n"
