from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from image.errors import Cancelled
from store.cache_mounts import CacheMounts


@pytest.fixture
def caches(tmp_path: Path) -> CacheMounts:
    return CacheMounts(tmp_path)


def test_the_same_id_is_the_same_directory(caches: CacheMounts) -> None:
    with caches.acquire("pip", "shared") as path:
        (path / "f").write_text("x")
    with caches.acquire("pip", "locked") as again:
        assert again == path
        assert (again / "f").read_text() == "x"
    with caches.acquire("npm", "shared") as other:
        assert other != path
    with caches.acquire("pip", "shared", mode=0o700) as stricter:
        assert stricter != path
        assert stricter.stat().st_mode & 0o7777 == 0o700


def test_shared_is_had_together_private_is_not(caches: CacheMounts) -> None:
    with caches.acquire("a", "shared") as first, caches.acquire("a", "shared") as second:
        assert first == second
        with caches.acquire("a", "private") as own:
            assert own != first
    with caches.acquire("a", "private") as own:
        assert own == first


def test_locked_waits_until_the_other_is_done(caches: CacheMounts) -> None:
    order: list[str] = []
    held, waiting = threading.Event(), threading.Event()

    def cancelled() -> bool:
        waiting.set()
        return False

    def second() -> None:
        held.wait()
        with caches.acquire("a", "locked", cancelled=cancelled):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with caches.acquire("a", "locked"):
        held.set()
        assert waiting.wait(30)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_waiting_can_be_cancelled(caches: CacheMounts) -> None:
    with (
        caches.acquire("a", "locked"),
        pytest.raises(Cancelled),
        caches.acquire("a", "locked", cancelled=lambda: True),
    ):
        pass


def test_it_is_filled_once_and_whole(caches: CacheMounts) -> None:
    def fill(path: Path) -> None:
        (path / "first").write_text("content")

    def broken(path: Path) -> None:
        (path / "half").write_text("")
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="no space left"), caches.acquire("a", "shared", fill=broken):
        pass
    with caches.acquire("a", "shared", fill=fill) as path:
        assert [child.name for child in path.iterdir()] == ["first"]
    with caches.acquire("a", "shared", fill=broken) as path:
        assert [child.name for child in path.iterdir()] == ["first"]


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from store.cache_mounts import CacheMounts
        with CacheMounts(Path(sys.argv[1])).acquire("a", "locked"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), tmp_path], check=False)
    with CacheMounts(tmp_path).acquire("a", "locked", cancelled=lambda: True) as path:
        assert path.is_dir()


def test_what_there_is_and_its_removal(caches: CacheMounts) -> None:
    assert caches.directories() == []
    with caches.acquire("pip", "shared") as path:
        (path / "sub").mkdir()
        (path / "sub" / "f").write_bytes(bytes(1000))
        [found] = caches.directories()
        assert (found.id, found.path, found.size) == ("pip", path, 1000)
        assert not caches.remove(found), "a step has it"
    assert caches.remove(found)
    assert caches.directories() == []
