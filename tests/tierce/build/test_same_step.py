"""Two builds at once, in two processes, never do the same step twice."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root

SLOW = "FROM busybox\nRUN sleep 2 && cat /proc/sys/kernel/random/uuid > /made\nRUN echo {number} > /number\n"


def start(tierce: Tierce, context: Path, number: int) -> subprocess.Popen[str]:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(SLOW.format(number=number))
    return tierce.start("build", "--network=none", "--progress=plain", "-t", f"n{number}", context)


def made(tierce: Tierce, number: int) -> str:
    return tierce("run", "--rm", "--network=none", f"n{number}", "cat", "/made").stdout


def wait_for(tierce: Tierce, word: str) -> None:
    deadline = time.monotonic() + 60
    claims = tierce.root / "claims"
    while not (claims.is_dir() and any(claims.iterdir())):
        assert time.monotonic() < deadline, f"no {word}"
        time.sleep(0.02)


def test_builds_at_once_share_a_step(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    builds = [start(tierce, tmp_path / f"c{number}", number) for number in range(3)]
    said = [build.communicate(timeout=120)[1] for build in builds]
    assert [build.returncode for build in builds] == [0, 0, 0], said
    assert len({made(tierce, number) for number in range(3)}) == 1
    assert sum("#2 CACHED" in text for text in said) == 2
    assert list((tierce.root / "claims").iterdir()) == []


def test_who_waits_for_a_killed_build_does_the_step(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    first = start(tierce, tmp_path / "c1", 1)
    wait_for(tierce, "claim")
    second = start(tierce, tmp_path / "c2", 2)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    said = second.communicate(timeout=120)[1]
    assert second.returncode == 0, said
    assert made(tierce, 2)


def test_who_waits_for_a_failed_build_tries_the_step(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 1; exit 3\n")
    builds = [tierce.start("build", "--network=none", tmp_path) for _ in range(2)]
    said = [build.communicate(timeout=120)[1] for build in builds]
    assert [build.returncode for build in builds] == [1, 1], said
    assert list((tierce.root / "claims").iterdir()) == []


def test_a_waiting_build_can_be_interrupted(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 600\n")
    first = tierce.start("build", "--network=none", tmp_path)
    wait_for(tierce, "claim")
    second = tierce.start("build", "--network=none", "--progress=plain", tmp_path)
    time.sleep(1)
    second.send_signal(signal.SIGINT)
    said = second.communicate(timeout=60)[1]
    assert second.returncode == 130, said
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)


def test_a_build_without_cache_waits_for_nobody(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /made\n")
    for number in (1, 2):
        tierce("build", "--no-cache", "--network=none", "-t", f"n{number}", tmp_path)
    assert made(tierce, 1) != made(tierce, 2)


def test_one_build_does_the_same_step_once_too(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    """Two stages that come to the same files by other ways go on with the same step."""
    tierce = tierce_with_busybox
    uuid = "sleep 1; cat /proc/sys/kernel/random/uuid > /made"
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS one\nRUN echo same > /f\n"
        "FROM busybox AS two\nRUN printf 'same\\n' > /f\n"
        f"FROM busybox AS left\nCOPY --from=one /f /f\nRUN {uuid}\n"
        f"FROM busybox AS right\nCOPY --from=two /f /f\nRUN {uuid}\n"
        "FROM busybox\nCOPY --from=left /made /left\nCOPY --from=right /made /right\n"
    )
    tierce("build", "--network=none", "-t", "app", tmp_path)
    left, right = tierce("run", "--rm", "--network=none", "app", "cat", "/left", "/right").stdout.split()
    assert left == right
