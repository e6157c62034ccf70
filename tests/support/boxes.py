"""Containers with docker's defaults on a busybox root filesystem, started for real."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runner.containers.start import Container, start
from runner.network.modes import NetworkMode
from runner.network.ports import Port
from runner.runtime import capabilities, defaults
from runner.runtime.privileges import Privileges
from runner.runtime.spawn import Stdio, Watcher, spawn
from runner.runtime.spec import NamedUser, Process, Spec

BUSYBOX = Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:bob,alice\naudio:x:29:alice\nusers:x:100:\n"


def make_rootfs(path: Path) -> Path:
    """Busybox with its applets as links, and two accounts."""
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox (package busybox-static)")
    for name in ("bin", "etc", "root", "home/alice", "tmp", "proc", "sys", "dev"):
        (path / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    return path


@dataclass(frozen=True)
class Finished:
    """How a container ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass
class Box:
    """Starts containers with docker's defaults on one root filesystem."""

    rootfs: Path
    root: Path
    privileges: Privileges
    spawn: Callable[[Stdio, int], Watcher] = spawn

    def spec(self, *args: str, user: str = "", **process: object) -> Spec:
        described = Process(
            args=args,
            env=defaults.environment((), hostname="box", terminal=False),
            user=NamedUser(user),
            capabilities=capabilities.granted(capabilities.DEFAULT),
        )
        return defaults.default_spec(replace(described, **process), hostname="box")  # type: ignore[arg-type]

    @contextmanager
    def started(
        self,
        spec: Spec,
        *,
        stdio: Stdio | None = None,
        network: NetworkMode = NetworkMode.NONE,
        ports: tuple[Port, ...] = (),
    ) -> Iterator[Container]:
        container = start(
            spec,
            self.rootfs,
            container_id=f"test-{secrets.token_hex(4)}",
            root=self.root,
            privileges=self.privileges,
            network=network,
            ports=ports,
            stdio=stdio or Stdio(),
            spawn=self.spawn,
        )
        with container:
            yield container

    def run(self, spec: Spec, *, network: NetworkMode = NetworkMode.NONE) -> Finished:
        """To the end. Output goes to pipes that hold what a test prints."""
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        try:
            with self.started(spec, stdio=Stdio(None, pipes[0][1], pipes[1][1]), network=network) as container:
                code = container.wait()
            out, err = (drain(read) for read, _ in pipes)
        finally:
            for fd in (fd for pair in pipes for fd in pair):
                os.close(fd)
        return Finished(code, out, err)

    def sh(self, script: str, *, network: NetworkMode = NetworkMode.NONE, **process: object) -> Finished:
        return self.run(self.spec("sh", "-c", script, **process), network=network)  # type: ignore[arg-type]


def drain(fd: int) -> str:
    """What is in the pipe now: its writers have ended, but for our own end."""
    os.set_blocking(fd, False)
    chunks = []
    with suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    return b"".join(chunks).decode()
