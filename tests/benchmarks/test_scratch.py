"""The benchmarks' file system goes with the run, however that ends, and with it whatever uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scratch import sweep
from tests.support.process import need

_RUN = """
import signal, subprocess
from benchmarks.scratch import scratch_file_system
with scratch_file_system(lambda _: None) as scratch, (scratch / "file").open("w") as file:
    print(subprocess.Popen(["sleep", "1000"], stdout=file).pid, scratch, flush=True)
    signal.pause()
"""


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_stays(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mkfs.ext4", package="e2fsprogs")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE, text=True, env=environ) as run:
        assert run.stdout is not None
        pid, scratch = run.stdout.readline().split()
        assert Path(scratch).is_mount()
        run.send_signal(number)
        assert run.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    sweep(lambda _: None)
    assert list(tmp_path.iterdir()) == []
    assert not Path(scratch).is_mount()
    assert Path("/proc", pid, "cmdline").read_text() == "" if Path("/proc", pid).exists() else True
