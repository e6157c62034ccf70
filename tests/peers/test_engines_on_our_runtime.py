"""Docker and podman with ``tierce-runtime`` below them, and with runc: the same commands, the same answers."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.dockerd import OUR_RUNTIME, Docker
from tests.support.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.peer]

Words = Sequence[str | Path]


@dataclass(frozen=True)
class Engine:
    """``docker`` or ``podman`` as a command, and what it adds to ``run``."""

    argv: Callable[..., list[str | Path]]
    environment: dict[str, str]
    options: tuple[str, ...]

    def ask(self, *words: str) -> tuple[int, str]:
        """Exit code and standard output."""
        done = subprocess.run(
            [str(word) for word in self.argv(*words)],
            env=self.environment, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run(self, *words: str, image: str = "busybox") -> tuple[int, str]:
        options = [word for word in words if word.startswith("-")]
        return self.ask("run", "--rm", "--network=none", *self.options, *options, image, *words[len(options) :])


@pytest.fixture(params=["docker", "podman"])
def engines(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """The engine on our runtime, and on runc."""
    if request.param == "docker":
        docker: Docker = request.getfixturevalue("docker")

        def ask(*words: str) -> list[str | Path]:
            return [docker.client, *words]

        environment = dict(docker.environment)
        return Engine(ask, environment, ("--runtime=tierce",)), Engine(ask, environment, ("--runtime=runc",))
    podman: Podman = request.getfixturevalue("podman_and_buildah")
    ours, environment = replace(podman, runtime=str(OUR_RUNTIME)), dict(podman.environment)
    return Engine(ours.argv, environment, podman.run_options()), Engine(podman.argv, environment, podman.run_options())


_STATUS = "grep -E 'Cap|NoNewPrivs|Seccomp:|Groups' /proc/self/status"
_MOUNTS = "awk '{print $2, $3, $4}' /proc/mounts | grep -v -E 'cgroup|overlay|/etc/|.containerenv' | sort"


@pytest.mark.parametrize(
    "words",
    [
        ("echo", "hello"),
        ("sh", "-c", "exit 42"),
        ("absent",),
        ("/etc",),
        ("/etc/passwd",),
        ("sh", "-c", f"id; umask; pwd; ulimit -c; {_STATUS}"),
        ("--user=1000:5", "--workdir=/tmp", "--env=A=b", "sh", "-c", f"id; pwd; echo $A; {_STATUS}"),
        ("--read-only", "--tmpfs=/t", "sh", "-c", "touch /t/x && touch /y"),
        ("--privileged", "sh", "-c", f"ls -l /dev | awk '{{print $1, $5, $6}}'; {_STATUS}"),
        ("--cap-add=NET_ADMIN", "--cap-drop=CHOWN", "--security-opt=no-new-privileges", "sh", "-c", _STATUS),
        ("--hostname=box", "sh", "-c", f"hostname; ls /dev; {_MOUNTS}"),
        ("--memory=32m", "--memory-swap=32m", "--pids-limit=20", "sh", "-c",
         "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max"),
        ("--sysctl=net.ipv4.ip_forward=1", "cat", "/proc/sys/net/ipv4/ip_forward"),
        ("--shm-size=1m", "--init", "df", "/dev/shm"),
    ],
    ids=lambda words: " ".join(words)[:40],
)  # fmt: skip
def test_run_gives_what_runc_gives(engines: tuple[Engine, Engine], words: tuple[str, ...]) -> None:
    ours, theirs = engines
    assert ours.run(*words) == theirs.run(*words)


def test_a_whole_life(engines: tuple[Engine, Engine]) -> None:
    engine, name = engines[0], f"tierce-test-{secrets.token_hex(4)}"
    assert (
        engine.ask("run", "-d", f"--name={name}", "--network=none", *engine.options, "busybox", "sleep", "1000")[0] == 0
    )
    try:
        assert engine.ask("exec", name, "sh", "-c", "echo in; exit 3") == (3, "in\n")
        assert engine.ask("exec", "-u", "5", "-w", "/tmp", "-e", "A=b", name, "sh", "-c", "echo $A $PWD $(id -u)") == (
            0,
            "b /tmp 5\n",
        )
        assert engine.ask("exec", "-d", name, "sleep", "999")[0] == 0
        assert engine.ask("top", name)[1].count("sleep") == 2
        assert engine.ask("pause", name)[0] == 0
        assert engine.ask("inspect", "--format", "{{.State.Status}}", name) == (0, "paused\n")
        assert engine.ask("unpause", name)[0] == 0
        assert name in engine.ask("stats", "--no-stream", name)[1]
        assert engine.ask("stop", "--time", "1", name)[0] == 0
        assert engine.ask("inspect", "--format", "{{.State.ExitCode}}", name) == (0, "137\n")
        assert engine.ask("start", name)[0] == 0
        assert engine.ask("kill", "--signal", "KILL", name)[0] == 0
        assert engine.ask("wait", name) == (0, "137\n")
    finally:
        assert engine.ask("rm", "--force", name)[0] == 0


def test_terminal(engines: tuple[Engine, Engine]) -> None:
    engine = engines[0]
    argv = engine.argv("run", "--rm", "-t", "--network=none", *engine.options, "busybox", "sh", "-c", "tty; exit 6")
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [str(word) for word in argv], env=engine.environment, stdin=slave, stdout=slave, stderr=slave, check=False,
            timeout=60,
        )  # fmt: skip
        assert (os.read(master, 100).strip(), done.returncode) == (b"/dev/pts/0", 6)
    finally:
        os.close(master)
        os.close(slave)


def test_podman_checks_health(podman_and_buildah: Podman) -> None:
    podman, name = replace(podman_and_buildah, runtime=str(OUR_RUNTIME)), f"tierce-test-{secrets.token_hex(4)}"
    healthy = ("--health-cmd", "test -e /etc/passwd", "--health-interval", "disable")
    podman("run", "-d", "--name", name, "--network=none", *podman.run_options(), *healthy, "busybox", "sleep", "1000")
    try:
        podman("healthcheck", "run", name)
    finally:
        podman("rm", "--force", "--time", "0", name)
