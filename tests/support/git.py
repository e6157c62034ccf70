"""Git repositories with known commits, served by git's own daemon on loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import answers, daemon, free_port, need

_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Repository:
    """A bare repository with a work tree beside it."""

    bare: Path
    tree: Path

    @classmethod
    def create(cls, directory: Path, name: str = "app.git") -> Repository:
        need("git")
        repository = cls(directory / name, directory / f"{name}.tree")
        repository.git("init", "--quiet", "--bare", "--initial-branch=main", str(repository.bare), cwd=directory)
        repository.git("clone", "--quiet", str(repository.bare), str(repository.tree), cwd=directory)
        return repository

    def git(self, *words: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *words], cwd=cwd or self.tree, check=True,
            capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str], *, executable: tuple[str, ...] = ()) -> str:
        """Write files, commit and push them; the commit."""
        for name, text in files.items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if name in executable else 0o644)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        self.git("push", "--quiet", "origin", "HEAD")
        self.git("update-server-info", cwd=self.bare)
        return self.git("rev-parse", "HEAD")


@contextmanager
def git_daemon(directory: Path, log: Path) -> Iterator[str]:
    """Serves every repository below ``directory``; the URL that stands before their names."""
    port = free_port()
    argv: list[str | Path] = [need("git"), "daemon", "--export-all", "--reuseaddr", f"--base-path={directory}",
            "--listen=127.0.0.1", f"--port={port}", directory]  # fmt: skip
    with daemon(argv, log=log, ready=lambda: answers(port)):
        yield f"git://127.0.0.1:{port}"
