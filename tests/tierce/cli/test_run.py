"""``tierce run``: flags, exit codes, streams, terminals, and nothing left behind."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from image.errors import InvalidInput
from tests.support.cli import Tierce
from tierce.run import read_env_file

root = pytest.mark.root
QUIET = ("run", "--rm", "--network", "none")


@root
@pytest.mark.parametrize(
    ("argv", "printed"),
    [
        (("busybox", "echo", "hello"), "hello\n"),
        (("-e", "A=1", "--env=B=2", "busybox", "sh", "-c", "echo $A $B"), "1 2\n"),
        (("-w", "/etc", "busybox", "pwd"), "/etc\n"),
        (("-u", "7:8", "busybox", "id", "-u"), "7\n"),
        (("--entrypoint", "/bin/echo", "busybox", "x"), "x\n"),
        (("-h", "here", "busybox", "hostname"), "here\n"),
        (("--tmpfs", "/t:size=1m", "busybox", "sh", "-c", "df /t | tail -1 | awk '{print $2}'"), "1024\n"),
        (("--mount", "type=tmpfs,dst=/t", "busybox", "sh", "-c", "touch /t/x && ls /t"), "x\n"),
        (("-v", "named:/t", "busybox", "sh", "-c", "touch /t/x && ls /t"), "x\n"),
        (("-v", "/t", "busybox", "sh", "-c", "grep -c ' /t ' /proc/mounts"), "1\n"),
        (("--shm-size", "1m", "busybox", "sh", "-c", "df /dev/shm | tail -1 | awk '{print $2}'"), "1024\n"),
        (("--domainname", "example.org", "busybox", "cat", "/proc/sys/kernel/domainname"), "example.org\n"),
        (("--add-host", "db:192.0.2.7", "busybox", "grep", "db", "/etc/hosts"), "192.0.2.7\tdb\n"),
        (("--sysctl", "kernel.shmmax=4096", "busybox", "cat", "/proc/sys/kernel/shmmax"), "4096\n"),
        (("--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"), "100\n200\n"),
        (
            ("--device", "/dev/loop-control:/dev/loops:r", "busybox", "sh", "-c", "test -c /dev/loops && echo ok"),
            "ok\n",
        ),
        (("--uts", "host", "busybox", "true"), ""),
        (("--ipc", "none", "busybox", "sh", "-c", "grep -q ' /dev/shm ' /proc/mounts || echo no"), "no\n"),
        (("--oom-score-adj", "500", "busybox", "cat", "/proc/self/oom_score_adj"), "500\n"),
        (("--read-only", "busybox", "sh", "-c", "touch /x 2>/dev/null || echo no"), "no\n"),
        (("--security-opt", "no-new-privileges", "busybox", "grep", "-c", "NoNewPrivs:.1", "/proc/1/status"), "1\n"),
        (("--cap-drop=ALL", "busybox", "grep", "CapEff", "/proc/1/status"), "CapEff:\t0000000000000000\n"),
        (("busybox", "echo", "--rm", "-e"), "--rm -e\n"),
        (("--rm=true", "-t=false", "busybox", "echo", "ok"), "ok\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_flags(argv: tuple[str, ...], printed: str, tierce_with_busybox: Tierce) -> None:
    assert tierce_with_busybox(*QUIET, *argv).stdout == printed


@root
@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (("busybox", "sh", "-c", "exit 7"), 7, ""),
        (("busybox", "sh", "-c", "kill -9 $$; sleep 1 & kill -9 $!; wait $!"), 137, ""),
        (("busybox", "absent"), 127, "executable file not found"),
        (("busybox", "/etc"), 126, "is a directory"),
        (("--pull=never", "absent-image"), 125, "no such image: absent-image"),
        (("--no-such-flag", "busybox"), 125, "unknown flag: --no-such-flag"),
        (("--cpus", "many", "busybox"), 125, "'many' is not a valid float"),
        (("-m", "lots", "busybox"), 125, "invalid size 'lots'"),
        (("--mount", "type=volume", "busybox"), 125, "target is required"),
        (("--mount", "type=bind,src=/absent,dst=/x", "busybox"), 125, "bind source path does not exist: /absent"),
        (("-v", "vol:/x", "--tmpfs", "/x/", "busybox"), 125, "duplicate mount point: /x"),
        (("-v", "a/b:/x", "busybox"), 125, "invalid volume name 'a/b'"),
        (("-v", "vol:/etc/passwd", "busybox"), 125, "in the image it is not a directory"),
        (("--volumes-from", "absent", "busybox"), 125, "absent"),
        (("--security-opt", "seccomp=/absent", "busybox"), 125, "opening seccomp profile /absent failed"),
        (("--security-opt", "apparmor=mine", "busybox"), 125, "AppArmor and SELinux profiles are not supported"),
        (("--security-opt", "magic", "busybox"), 125, "invalid security option 'magic'"),
        (("--cap-add", "FLY", "busybox"), 125, "invalid capability"),
        (("--device", "/dev/absent", "busybox"), 125, "cannot add device /dev/absent: no such file or directory"),
        (("--device", "/etc/passwd", "busybox"), 125, "not a device node"),
        (("--device-cgroup-rule", "c 1", "busybox"), 125, "invalid device cgroup format"),
        (("--ulimit", "nofile=99999999", "busybox", "true"), 125, "resource limits: prlimit on RLIMIT_NOFILE"),
        (("--ulimit", "nofiles=1", "busybox"), 125, "invalid ulimit type 'nofiles'"),
        (("--memory-swap", "1g", "busybox"), 125, "give --memory too"),
        (("--cpus", "1", "--cpu-quota", "5000", "busybox"), 125, "conflicting options"),
        (("--sysctl", "vm.swappiness=1", "busybox"), 125, "would change the host"),
        (("--gpus", "all", "busybox"), 125, "--gpus is not supported"),
        (("--runtime", "kata", "busybox"), 125, "unknown or invalid runtime name: kata"),
        (("--isolation", "hyperv", "busybox"), 125, "hyperv"),
        (("--ipc", "odd", "busybox"), 125, "--ipc: invalid mode 'odd'"),
        (("--userns", "keep-id", "busybox"), 125, "--userns: invalid mode 'keep-id'"),
        (("--uts", "host", "-h", "x", "busybox"), 125, "conflicting options: --hostname and --uts host"),
        (("-h", "under_score!", "busybox"), 125, "invalid hostname"),
        (("--add-host", "name", "busybox"), 125, "bad format for add-host"),
        (("--env-file", "/absent", "busybox"), 125, "open /absent: no such file or directory"),
        (("--platform", "nonsense/a/b/c", "busybox"), 125, "invalid platform"),
        ((), 1, "missing argument 'IMAGE'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(argv: tuple[str, ...], code: int, error: str, tierce_with_busybox: Tierce) -> None:
    done = tierce_with_busybox.attempt(*QUIET, *argv)
    assert done.code == code, str(done)
    assert error in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 2


@root
def test_streams_stay_apart_and_input_arrives(tierce_with_busybox: Tierce) -> None:
    done = tierce_with_busybox(*QUIET, "-i", "busybox", "sh", "-c", "cat; echo err >&2", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


@root
def test_an_image_that_is_not_unpacked_is_unpacked_first(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    other = Tierce(tmp_path / "other")
    other(
        "copy", f"oci:{tierce_with_busybox.root}:busybox:latest".replace(":busybox:latest", ":@0"), "busybox", "--all"
    )
    assert "0 layers" in other("system", "check").stdout
    assert other(*QUIET, "busybox", "echo", "ok").stdout == "ok\n"
    assert "1 layers" in other("system", "check").stdout


@root
def test_nothing_is_kept(tierce_with_busybox: Tierce) -> None:
    before = sorted(os.listdir(tierce_with_busybox.root / "overlay2"))
    tierce_with_busybox(*QUIET, "busybox", "sh", "-c", "echo x > /written")
    assert sorted(os.listdir(tierce_with_busybox.root / "overlay2")) == before
    assert tierce_with_busybox.attempt(*QUIET, "busybox", "cat", "/written").code == 1


@root
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 15), (signal.SIGINT, 2)], ids=["term", "int"])
def test_signals_reach_the_container(number: int, code: int, tierce_with_busybox: Tierce) -> None:
    script = f"trap 'exit {code}' TERM INT; echo ready; while :; do sleep 0.1; done"
    process = tierce_with_busybox.start(*QUIET, "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code


@root
def test_a_terminal(tierce_with_busybox: Tierce) -> None:
    leader, follower = pty.openpty()
    argv = tierce_with_busybox.argv(*QUIET, "-it", "busybox", "sh", "-c", "tty; read x; echo got $x")
    process = subprocess.Popen(argv, stdin=follower, stdout=follower, stderr=follower, env=tierce_with_busybox.env())
    os.close(follower)
    os.write(leader, b"word\n")
    seen = b""
    deadline = time.monotonic() + 30
    while b"got word" not in seen and time.monotonic() < deadline:
        if select.select([leader], [], [], 0.2)[0]:
            seen += os.read(leader, 4096)
    assert process.wait(timeout=30) == 0
    os.close(leader)
    assert b"/dev/" in seen
    assert b"got word" in seen


@root
def test_debug_shows_what_the_runtime_does(tierce_with_busybox: Tierce) -> None:
    argv = [*tierce_with_busybox.argv(), "--debug", *QUIET, "busybox", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "exec true"


def test_env_file(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("\ufeff# comment\nA=1\n\n  B=two words\nC\nD=#x\n")
    assert read_env_file(str(file)) == ["A=1", "B=two words", "C", "D=#x"]
    file.write_text("bad name=1\n")
    with pytest.raises(InvalidInput, match="a name has no blanks"):
        read_env_file(str(file))
    file.write_bytes(b"\xff\xfe=1")
    with pytest.raises(InvalidInput, match="not utf-8"):
        read_env_file(str(file))
