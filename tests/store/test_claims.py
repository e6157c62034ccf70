"""Claims between threads and processes: one works, the others wait, a killed one holds nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from image.errors import Cancelled
from store.claims import claim

SPAWN = multiprocessing.get_context("spawn")


def never() -> bool:
    return False


def hold(root: Path, tell: Connection) -> None:
    """A process that takes a claim, says so, and holds it until it is ended."""
    claim(root, "key", never)
    tell.send("held")
    tell.recv()


def test_a_second_claim_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    first = claim(tmp_path, "key", never)

    def second() -> None:
        taken = claim(tmp_path, "key", never)
        order.append(f"second waited={taken.waited}")
        taken.release()

    thread = threading.Thread(target=second)
    thread.start()
    order.append("first ends")
    first.release()
    thread.join(30)
    assert order[0] == "first ends"
    assert order[1].startswith("second")
    assert list((tmp_path / "claims").iterdir()) == []


def test_other_keys_do_not_wait(tmp_path: Path) -> None:
    first, other = claim(tmp_path, "a", never), claim(tmp_path, "b", never)
    assert (first.waited, other.waited) == (False, False)
    first.release()
    other.release()


def test_waiting_can_be_cancelled(tmp_path: Path) -> None:
    first = claim(tmp_path, "key", never)
    with pytest.raises(Cancelled):
        claim(tmp_path, "key", lambda: True)
    first.release()


def test_release_twice_does_not_take_the_claim_of_the_next(tmp_path: Path) -> None:
    first = claim(tmp_path, "key", never)
    first.release()
    second = claim(tmp_path, "key", never)
    first.release()
    with pytest.raises(Cancelled):
        claim(tmp_path, "key", lambda: True)
    second.release()


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(tmp_path, there))
    process.start()
    try:
        assert here.recv() == "held"
        with pytest.raises(Cancelled):
            claim(tmp_path, "key", lambda: True)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        claim(tmp_path, "key", never).release()
    finally:
        process.kill()
        process.join()


def test_many_threads_each_have_it_alone(tmp_path: Path) -> None:
    inside, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(20):
            held = claim(tmp_path, "key", never)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
                done += 1
            held.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 80)
