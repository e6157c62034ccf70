"""The memory of a build does not grow with its files, whether a step copies or makes them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.support.cli import Tierce

pytestmark = [pytest.mark.root, pytest.mark.slow]

ALLOWED: Final = 150 << 20
_PAUSE_S: Final = 0.02


def peak(pid: int | str) -> int:
    """The most memory that a process has had at once, in bytes; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def packers(pid: int) -> set[int]:
    """The processes that pack layers for a build."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
            found |= {
                int(child) for child in children if b"store.packer" in Path(f"/proc/{child}/cmdline").read_bytes()
            }
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def bare_interpreter() -> int:
    program = "print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True)
    return next(int(line.split()[1]) << 10 for line in done.stdout.splitlines() if line.startswith("VmHWM:"))


def peaks_of(tierce: Tierce, *words: str | Path) -> tuple[int, int]:
    """Run a command; the peak of its own process, and the highest that a packing process of it came to."""
    with tierce.start(*words) as process:
        own = packing = 0
        while process.poll() is None:
            own = max(own, peak(process.pid))
            packing = max(packing, *map(peak, packers(process.pid)), 0)
            time.sleep(_PAUSE_S)
        out, error = process.communicate()
    assert process.returncode == 0, out + error
    return own, packing


@pytest.mark.parametrize(
    ("size", "step"),
    [(1 << 30, "COPY large /"), (4 << 30, f"RUN truncate -s {4 << 30} /large")],
    ids=["copied", "made"],
)
def test_a_large_file(tierce_with_busybox: Tierce, tmp_path: Path, size: int, step: str) -> None:
    """Sparse files, so that it takes no disk; to hashing and packing they are as long as any."""
    context = tmp_path / "context"
    context.mkdir()
    with (context / "large").open("wb") as file:
        file.truncate(size)
    (context / "Dockerfile").write_text(f"FROM busybox\n{step}\n")
    own, packing = peaks_of(tierce_with_busybox, "build", "--network=none", "--quiet", "--tag", "large", context)
    assert packing > 0
    assert own + packing <= bare_interpreter() + ALLOWED
    [copied] = (tierce_with_busybox.root / "overlay2").glob("*/diff/large")
    assert copied.stat().st_size == size
    assert os.stat(copied).st_blocks == 0  # holes stay holes
