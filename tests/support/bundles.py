"""OCI bundles of busybox, and a runtime's command line to drive them: ours, or runc's."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.dockerd import OUR_RUNTIME

OURS = (str(OUR_RUNTIME),)


@dataclass
class Runtime:
    """One runtime with a root and a bundle of its own. What it left is removed by ``close``."""

    command: tuple[str, ...]
    root: Path
    bundle: Path
    started: list[str] = field(default_factory=list)

    def new_id(self) -> str:
        container_id = f"tierce-test-{secrets.token_hex(4)}"
        self.started.append(container_id)
        return container_id

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a verb; its output goes to files, since a detached container keeps what it inherits."""
        command = [*self.command, "--root", str(self.root), *words]
        out, err = self.bundle / "stdout", self.bundle / "stderr"
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, check=False, timeout=60, **options
            )
        return subprocess.CompletedProcess(command, done.returncode, out.read_bytes(), err.read_bytes())

    def ok(self, *words: str, **options: Any) -> str:
        """Of a verb that must succeed."""
        done = self(*words, **options)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.decode()

    def state(self, container_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", container_id))
        return found

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.bundle / "config.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def process(self, *args: str, **more: Any) -> None:
        """What the next container executes."""
        self.configure(lambda document: document["process"].update(args=list(args), **more))

    def sleeping(self, *words: str) -> str:
        """The id of a container that has started and sleeps."""
        container_id = self.new_id()
        self.process("sleep", "1000")
        self.ok("run", "--detach", "--bundle", str(self.bundle), *words, container_id)
        return container_id

    def close(self) -> None:
        for container_id in self.started:
            self("delete", "--force", container_id)
        reap()


def reap() -> None:
    """Collect what detached containers left us: tests are the parent of orphans."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def runtime_with_bundle(command: tuple[str, ...], directory: Path) -> Runtime:
    from tests.support.boxes import make_rootfs

    bundle = directory / "bundle"
    bundle.mkdir()
    make_rootfs(bundle / "rootfs")
    subprocess.run([*command, "spec", "--bundle", str(bundle)], check=True)
    runtime = Runtime(command, directory / "state", bundle)

    def change(document: dict[str, Any]) -> None:
        document["process"] |= {"terminal": False, "rlimits": []}
        document["root"]["readonly"] = False

    runtime.configure(change)
    return runtime
