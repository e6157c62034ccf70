"""A disk that is full while a container writes and while it becomes an image: nothing is lost but what had no room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.test_bad_input import names, told
from tests.support.cli import Tierce

pytestmark = pytest.mark.root

_LINE, _LINES = "0123456789abcdef", 2_000_000


@pytest.fixture
def small(tmp_path: Path, busybox_archive: Path) -> Iterator[Tierce]:
    """A store with busybox on a disk of 14 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "none", disk], check=True)
    try:
        tierce = Tierce(disk / "root", {"TIERCE_RUNTIME_DIR": str(tmp_path / "small-run")})
        tierce("load", "-q", "-i", busybox_archive)
        yield tierce
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(tierce: Tierce) -> Path:
    """A file that leaves the disk 200 kB, which is enough for the database."""
    path = tierce.root.parent / "filler"
    with path.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        file.truncate(file.tell() - (200 << 10))
    return path


def test_a_log_loses_lines_and_nothing_else(small: Tierce) -> None:
    script = f"yes {_LINE} | head -n {_LINES}; echo last; exit 6"
    small("run", "--detach", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    assert small("wait", "box").stdout == "6\n"
    lines = small("logs", "box").stdout.splitlines()
    assert 0 < len(lines) < _LINES
    assert set(lines) <= {_LINE, "last"}
    small("rm", "box")
    assert small("run", "--rm", "--network", "none", "busybox", "echo", "again").stdout == "again\n"
    small("system", "check")


def test_commit_leaves_the_store_as_it_was(small: Tierce) -> None:
    before = names(small)
    script = "dd if=/dev/urandom of=/big bs=1M count=2 2>/dev/null"
    small("run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script)
    filler = fill(small)
    told(small.attempt("commit", "box", "made"), "no space left on device")
    assert names(small) == before
    filler.unlink()
    small("commit", "box", "made")
    small("rm", "box")
    size = small("run", "--rm", "--network", "none", "made", "stat", "-c", "%s", "/big").stdout
    assert size == f"{2 << 20}\n"
    small("system", "check")
