"""Files that two threads write: all of them, and an end to both whatever happens to one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.dockerfile.ignore import NOTHING
from builder.entries import Stop, never
from builder.steps.place import Destination, Placing
from builder.tree import Tree
from image.errors import Cancelled, InvalidInput

MANY = 1000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    for number in range(MANY):
        file = path / f"d{number % 7}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number * (number % 50))
        os.utime(file, (0, number))
    return path


def copy(source: Path, target: Path, stop: Stop = never, *, times: int = 1) -> None:
    read, write = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target))
    try:
        with Placing(Tree(read), Destination(write), None, None, stop=stop) as placing:
            for _ in range(times):
                placing.contents("", "", NOTHING)
    finally:
        os.close(read)
        os.close(write)


def held() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "over-what-is-there"])
def test_every_file_is_written(source: Path, tmp_path: Path, times: int) -> None:
    target = tmp_path / "target"
    target.mkdir()
    before = held()
    copy(source, target, times=times)
    assert held() == before
    for file in source.rglob("f*"):
        copied = target / file.relative_to(source)
        assert copied.read_bytes() == file.read_bytes()
        assert copied.stat().st_mtime_ns == file.stat().st_mtime_ns
    assert sum(1 for _ in target.rglob("f*")) == MANY


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: one thread")
def test_two_threads_write(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    seen: set[str] = set()
    copy(source, target, lambda: seen.add(threading.current_thread().name))
    assert seen == {"copy", threading.current_thread().name}


@pytest.mark.parametrize("number", [0, 70, MANY - 1], ids=lambda number: f"file {number}")
def test_a_failure_in_either_thread_ends_the_copy(source: Path, tmp_path: Path, number: int) -> None:
    target = tmp_path / "target"
    (target / f"d{number % 7}" / f"f{number}").mkdir(parents=True)
    before = held()
    with pytest.raises(InvalidInput, match="cannot overwrite directory with non-directory"):
        copy(source, target)
    assert held() == before


def _stopping_after(calls: int, *, in_thread: bool) -> Callable[[], None]:
    count = 0

    def stop() -> None:
        nonlocal count
        count += (threading.current_thread().name == "copy") == in_thread
        if count > calls:
            raise Cancelled("stopped")

    return stop


@pytest.mark.parametrize("in_thread", [False, True], ids=["the walker", "the other"])
def test_a_stop_reaches_both_threads(source: Path, tmp_path: Path, *, in_thread: bool) -> None:
    target = tmp_path / "target"
    target.mkdir()
    before = held()
    with pytest.raises(Cancelled):
        copy(source, target, _stopping_after(30, in_thread=in_thread))
    assert held() == before
    assert sum(1 for _ in target.rglob("f*")) < MANY
