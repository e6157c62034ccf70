"""What docker refuses, Tierce refuses with the same exit code, and says why in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.context import File, write_context
from tests.support.dockerd import Docker

pytestmark = [pytest.mark.root, pytest.mark.peer]

ABSENT = "127.0.0.1:1/absent:1"


@pytest.mark.parametrize(
    ("dockerfile", "told"),
    [
        pytest.param("FROM busybox\nRUNN true\n", "unknown instruction: RUNN", id="unknown instruction"),
        pytest.param("FROM busybox\nCOPY absent /\n", "absent", id="missing file"),
        pytest.param("FROM busybox\nCOPY ../outside /\n", "outside", id="outside the context"),
        pytest.param(f"FROM {ABSENT}\n", ABSENT, id="absent base image"),
        pytest.param("FROM busybox\nRUN exit 3\n", "exit code: 3", id="failing step"),
        pytest.param("FROM busybox\nRUN sleep 9 & kill -9 $!; wait $!\n", "exit code: 137", id="killed step"),
        pytest.param("FROM busybox\nCOPY --from=2 / /\n", "2", id="unknown stage"),
        pytest.param("", "empty", id="empty"),
        pytest.param("# only a comment\n", "no", id="no instruction"),
        pytest.param("FROM busybox\nRUN ['sh'\nCMD [\n FOO\n", "FOO", id="broken JSON falls back to shell"),
    ],
)
def test_same_exit_code_of_build(
    dockerfile: str, told: str, docker: Docker, tierce_with_busybox: Tierce, tmp_path: Path
) -> None:
    context = write_context(tmp_path / "context", {"Dockerfile": File(dockerfile)})
    theirs = docker.exit_code("build", "--network=host", "--tag", "refused", context)
    ours = tierce_with_busybox.attempt("build", "--network=host", "--tag", "refused", context)
    assert ours.code == theirs != 0, str(ours)
    assert told in ours.stderr
    assert "Traceback" not in ours.stderr
    assert tierce_with_busybox.attempt("inspect", "refused").code != 0


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(("busybox", "true"), id="success"),
        pytest.param(("busybox", "sh", "-c", "exit 7"), id="exit code"),
        pytest.param(("busybox", "sh", "-c", "kill -9 $$"), id="process 1 can't kill itself"),
        pytest.param(("busybox", "sh", "-c", "sleep 9 & kill -9 $!; wait $!"), id="killed child"),
        pytest.param(("busybox", "no-such-program"), id="program not found"),
        pytest.param(("busybox", "/etc/passwd"), id="not executable"),
        pytest.param(("busybox", "/etc"), id="a directory"),
        pytest.param((ABSENT, "true"), id="absent image"),
        pytest.param(("--no-such-flag", "busybox", "true"), id="unknown flag"),
        pytest.param(("--user", "nobody-here", "busybox", "true"), id="unknown user"),
        pytest.param(("--workdir", "/etc/passwd", "busybox", "true"), id="working directory is a file"),
    ],
)
def test_same_exit_code_of_run(argv: tuple[str, ...], docker: Docker, tierce_with_busybox: Tierce) -> None:
    theirs = docker.exit_code("run", "--rm", "--network=none", *argv)
    ours = tierce_with_busybox.attempt("run", "--rm", "--network=none", *argv)
    assert ours.code == theirs, str(ours)
    assert "Traceback" not in ours.stderr
