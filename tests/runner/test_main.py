"""``tierce-runtime`` on bundles that other tools made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from image.errors import InvalidInput
from runner.runtime.arguments import parse_arguments
from runner.runtime.config_json import decode_spec
from tests.support.boxes import make_rootfs

RUNTIME = [sys.executable, "-m", "runner.runtime.main"]
CHECKOUT = Path(__file__).parents[2]


def runtime(tmp_path: Path, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*RUNTIME, "--root", str(tmp_path / "state"), *words]
    return subprocess.run(command, capture_output=True, input=data, check=False, cwd=CHECKOUT, timeout=60)


def test_arguments() -> None:
    found = parse_arguments(["--debug", "--root=/x", "run", "-b", "bundle", "-pid-file", "p", "id"])
    assert (found.verb, found.operands) == ("run", ("id",))
    assert (found.common.flag("debug"), found.common.text("root")) == (True, "/x")
    assert (found.options.text("bundle"), found.options.text("pid-file")) == ("bundle", "p")


def test_words_after_the_id_of_exec_are_the_commands() -> None:
    found = parse_arguments(["exec", "-e", "A=1", "--env=B=2", "id", "ls", "-l", "--", "x"])
    assert found.operands == ("id", "ls", "-l", "--", "x")
    assert found.options.every("env") == ("A=1", "B=2")


@pytest.mark.parametrize("words", [["--nonsense"], ["run", "-b"], ["-x"]], ids=" ".join)
def test_unknown_arguments(words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        parse_arguments(words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["checkpoint", "x"], b"checkpoint is not supported"),
        (["--systemd-cgroup", "create", "x"], b"use the cgroupfs driver"),
        (["state", "absent"], b"container absent does not exist"),
        (["dance"], b"unknown command 'dance'"),
        (["run"], b"exactly one container id"),
        (["run", "a/b"], b"container id 'a/b'"),
        (["run", "-b", "/absent", "x"], b"cannot read /absent/config.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_refusals(tmp_path: Path, words: list[str], text: bytes) -> None:
    done = runtime(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tierce-runtime: ")
    assert text in done.stderr


def test_features_and_version(tmp_path: Path) -> None:
    found = json.loads(runtime(tmp_path, "features").stdout)
    assert "mount" in found["linux"]["namespaces"]
    assert b"spec: 1." in runtime(tmp_path, "--version").stdout


def test_spec_is_readable_and_not_overwritten(tmp_path: Path) -> None:
    assert runtime(tmp_path, "spec", "-b", str(tmp_path)).returncode == 0
    spec = decode_spec((tmp_path / "config.json").read_bytes())
    assert (spec.process.args, spec.process.no_new_privileges, spec.root.readonly) == (("sh",), True, True)
    assert b"exists" in runtime(tmp_path, "spec", "-b", str(tmp_path)).stderr


def _edit(bundle: Path, **process: object) -> None:
    path = bundle / "config.json"
    document = json.loads(path.read_text())
    document["process"] |= process
    path.write_text(json.dumps(document))


@pytest.mark.root
class TestBundles:
    def test_own_spec_runs(self, tmp_path: Path) -> None:
        make_rootfs(tmp_path / "rootfs")
        runtime(tmp_path, "spec", "-b", str(tmp_path))
        _edit(tmp_path, terminal=False, args=["sh", "-c", "cat; exit 6"])
        done = runtime(tmp_path, "run", "-b", str(tmp_path), "own", data=b"hello")
        assert (done.stdout, done.returncode) == (b"hello", 6)

    @pytest.mark.peer
    def test_as_runc_would(self, tmp_path: Path) -> None:
        """The same bundle, in both: the same answers to the same questions."""
        if shutil.which("runc") is None:
            pytest.skip("needs runc")
        make_rootfs(tmp_path / "rootfs")
        subprocess.run(["runc", "spec"], cwd=tmp_path, check=True)
        script = """
id; umask; pwd; env | sort; hostname; ulimit -n; ls /dev
grep -E 'Cap|NoNewPrivs|Seccomp:|SigBlk' /proc/self/status
awk '{print $2, $3}' /proc/mounts | grep -v cgroup | sort
touch /x; cat /proc/kcore; echo x > /proc/sys/kernel/domainname; exit 3
"""
        _edit(tmp_path, terminal=False, args=["sh", "-c", script])
        ours = runtime(tmp_path, "run", "-b", str(tmp_path), "compared")
        theirs = subprocess.run(
            ["runc", "--root", str(tmp_path / "runc"), "run", "--bundle", str(tmp_path), f"tierce-test-{os.getpid()}"],
            capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ours.stdout.decode().splitlines() == theirs.stdout.decode().splitlines()
        assert (ours.stderr, ours.returncode) == (theirs.stderr, theirs.returncode)

    @pytest.mark.peer
    def test_bundle_of_umoci(self, tmp_path: Path) -> None:
        if shutil.which("umoci") is None:
            pytest.skip("needs umoci")
        layout = f"{tmp_path / 'layout'}:test"
        umoci = ["umoci"]
        subprocess.run([*umoci, "init", "--layout", tmp_path / "layout"], check=True)
        subprocess.run([*umoci, "new", "--image", layout], check=True)
        subprocess.run([*umoci, "config", "--image", layout, "--config.cmd", "id"], check=True)
        subprocess.run([*umoci, "unpack", "--image", layout, tmp_path / "bundle"], check=True)
        (tmp_path / "bundle/rootfs").rmdir()
        make_rootfs(tmp_path / "bundle/rootfs")
        _edit(tmp_path / "bundle", terminal=False)
        done = runtime(tmp_path, "run", "-b", str(tmp_path / "bundle"), "umoci")
        assert (done.stdout[:14], done.returncode, done.stderr) == (b"uid=0(root) gi", 0, b"")

    def test_pid_file_and_debug(self, tmp_path: Path) -> None:
        make_rootfs(tmp_path / "rootfs")
        runtime(tmp_path, "spec", "-b", str(tmp_path))
        _edit(tmp_path, terminal=False, args=["true"])
        pid_file = tmp_path / "pid"
        done = runtime(tmp_path, "--debug", "run", "-b", str(tmp_path), "--pid-file", str(pid_file), "x")
        assert pid_file.read_text().isdigit()
        assert b"+ pivot_root . . && umount -l .\n" in done.stderr

    def test_missing_command(self, tmp_path: Path) -> None:
        make_rootfs(tmp_path / "rootfs")
        runtime(tmp_path, "spec", "-b", str(tmp_path))
        _edit(tmp_path, terminal=False, args=["absent"])
        done = runtime(tmp_path, "run", "-b", str(tmp_path), "x")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b'exec: "absent": executable file not found in $PATH' in done.stderr
