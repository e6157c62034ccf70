"""A private Docker daemon: its own data, socket and containerd, and no hand on the host's network.

What a machine with hybrid cgroups and without CAP_SYS_RESOURCE needs is no more than
``--bridge=none --iptables=false``: containers use the host's network or none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import command, daemon, need, remove_cgroups, unmount_below

OUR_RUNTIME = Path(sys.executable).with_name("tierce-runtime")
"""Known to the daemon as ``--runtime tierce``."""
CGROUP = "tierce-peer-docker"


@dataclass(frozen=True, slots=True)
class Docker:
    """The docker client of one private daemon; ``docker("images")`` returns what it prints."""

    client: str
    environment: Mapping[str, str]

    def __call__(self, *args: str | Path, stdin: str | None = None) -> str:
        return command([self.client, *args], env=self.environment, stdin=stdin)

    def exit_code(self, *args: str | Path) -> int:
        """How a command ends that may fail."""
        argv = [self.client, *map(str, args)]
        return subprocess.run(argv, check=False, capture_output=True, env=self.environment, timeout=600).returncode

    def build(self, name: str, context: Path, *options: str | Path) -> None:
        """``docker build`` by BuildKit, with the host's network for RUN."""
        self("build", "--quiet", "--network=host", "--tag", name, *options, context)

    def run(self, image: str, *argv: str, options: tuple[str, ...] = ("--network=none",)) -> str:
        """What a container of ``image`` prints."""
        return self("run", "--rm", *options, image, *argv)


@contextmanager
def dockerd(directory: Path) -> Iterator[Docker]:
    """A client of a daemon that keeps everything in ``directory``, which is gone afterwards.

    Skips the test when the machine has no dockerd.
    """
    program, client = need("dockerd", package="docker.io"), _client()
    directory.mkdir(parents=True, exist_ok=True)
    socket = directory / "docker.sock"
    (directory / "client").mkdir()
    docker = Docker(client, _environment(socket, directory / "client"))
    argv: list[str | Path] = [program, "--host", f"unix://{socket}", "--pidfile", directory / "pid",
            "--data-root", directory / "data", "--exec-root", directory / "exec",
            "--cgroup-parent", f"/{CGROUP}", "--bridge=none", "--iptables=false", "--ip6tables=false",
            "--add-runtime", f"tierce={OUR_RUNTIME}"]  # fmt: skip
    try:
        with daemon(argv, log=directory / "log", ready=lambda: _answers(docker)):
            yield docker
    finally:
        unmount_below(directory)
        remove_cgroups(CGROUP)
        shutil.rmtree(directory)


def _client() -> str:
    """Debian's client first: a newer one can't use an old daemon's BuildKit without buildx."""
    return shutil.which("docker", path=f"/usr/bin:{os.environ['PATH']}") or need("docker", package="docker.io")


def _environment(socket: Path, config: Path) -> dict[str, str]:
    own = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "1"}
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")} | own


def _answers(docker: Docker) -> bool:
    asked = subprocess.run([docker.client, "version"], check=False, capture_output=True, env=docker.environment)
    return asked.returncode == 0
