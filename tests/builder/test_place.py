from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.steps.place import copy_content


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_content_is_copied_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("wb") as out:
        assert copy_content(source.fileno(), out.fileno(), size)
    assert (tmp_path / "out").read_bytes() == data


def test_holes_stay_holes(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as source:
        source.write(b"start")
        source.seek(4 << 30)
        source.write(b"end")
    size = (tmp_path / "source").stat().st_size
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("wb") as out:
        assert copy_content(source.fileno(), out.fileno(), size)
    copied = (tmp_path / "out").stat()
    assert copied.st_size == size
    assert copied.st_blocks * 512 < 1 << 20
    with (tmp_path / "out").open("rb") as out:
        assert out.read(5) == b"start"
        out.seek(-3, os.SEEK_END)
        assert out.read() == b"end"


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
def test_a_file_that_became_shorter_is_noticed(tmp_path: Path, size: int) -> None:
    (tmp_path / "source").write_bytes(bytes(size - 1))
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("wb") as out:
        assert not copy_content(source.fileno(), out.fileno(), size)
