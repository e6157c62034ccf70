"""A build is answered from memory when nothing changed, and never when something did."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root

DOCKERFILE = "FROM busybox\nARG A\nARG B=1\nLABEL a=$A b=$B\nCOPY . /x\nRUN ls -l /x > /listing\n"
_PROBE = (
    "import sys; from tierce.cli.main import main\n"
    "try: main(sys.argv[1:])\n"
    "finally: print('planned' if 'builder.plan' in sys.modules else 'remembered', file=sys.stderr)"
)


class Project:
    """A directory to build, and a way to see whether a build was planned or remembered."""

    def __init__(self, tierce: Tierce, root: Path) -> None:
        self.tierce = tierce
        self.root = root
        self.environment: dict[str, str] = {}

    def settle(self) -> None:
        """Wait until a later change is bound to show in the files' times."""
        time.sleep(0.1)

    def build(self, *flags: str) -> tuple[str, bool]:
        """The image's id, and whether it came from memory."""
        argv = [sys.executable, "-c", _PROBE, "--root", str(self.tierce.root), "build", "-q", "--network=none", *flags]
        env = {**self.tierce.env(), **self.environment}
        done = subprocess.run([*argv, str(self.root)], check=True, capture_output=True, text=True, env=env)
        return done.stdout.strip(), done.stderr.strip().endswith("remembered")


@pytest.fixture
def project(tierce_with_busybox: Tierce, tmp_path: Path) -> Project:
    root = tmp_path / "project"
    (root / "d").mkdir(parents=True)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "f").write_text("f")
    (root / "d" / "g").write_text("g")
    made = Project(tierce_with_busybox, root)
    made.settle()
    return made


def test_nothing_changed(project: Project) -> None:
    first, from_memory = project.build("-t", "app")
    assert not from_memory
    assert project.build("-t", "app") == (first, True)


def same_size(project: Project) -> None:
    (project.root / "d" / "g").write_text("G")


def same_size_and_time(project: Project) -> None:
    before = (project.root / "f").stat()
    (project.root / "f").write_text("F")
    os.utime(project.root / "f", ns=(before.st_atime_ns, before.st_mtime_ns))


def retag_base(project: Project) -> None:
    project.tierce("build", "-q", "-t", "busybox", "-", stdin="FROM busybox\nLABEL another=1\n")


def new_variable(project: Project) -> None:
    project.environment["A"] = "2"


def new_epoch(project: Project) -> None:
    project.environment["SOURCE_DATE_EPOCH"] = "5"


CHANGES: dict[str, Callable[[Project], object]] = {
    "content of the same size": same_size,
    "content of the same size and mtime": same_size_and_time,
    "a new file": lambda project: (project.root / "new").write_text(""),
    "a removed file": lambda project: (project.root / "d" / "g").unlink(),
    "a mode": lambda project: (project.root / "f").chmod(0o600),
    "a link": lambda project: (project.root / "l").symlink_to("f"),
    "an ignore file": lambda project: (project.root / ".dockerignore").write_text("f\n"),
    "an ignore file of its own": lambda project: (project.root / "Dockerfile.dockerignore").write_text("f\n"),
    "the Dockerfile": lambda project: (project.root / "Dockerfile").write_text(DOCKERFILE + "LABEL c=1\n"),
    "the base image": retag_base,
    "a variable of a bare build argument": new_variable,
    "the epoch": new_epoch,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(project: Project, change: Callable[[Project], object]) -> None:
    before, _ = project.build("--build-arg", "A")
    assert project.build("--build-arg", "A") == (before, True)
    change(project)
    after, from_memory = project.build("--build-arg", "A")
    assert not from_memory
    assert after != before


@pytest.mark.parametrize(
    "flags",
    [
        ("--build-arg", "B=2"), ("--label", "l=1"), ("--target", "0"), ("--no-cache",), ("--squash",),
        ("--timestamp", "7"), ("--format", "docker"), ("-o", "type=cacheonly"), ("--no-cache-filter", "x"),
    ],
    ids=lambda flags: flags[0],
)  # fmt: skip
def test_other_words_are_another_question(project: Project, flags: tuple[str, ...]) -> None:
    project.build()
    assert project.build()[1]
    assert not project.build(*flags)[1]


SECRET = "FROM busybox\nCOPY . /x\nRUN --mount=type=secret,id=token,required cat /run/secrets/token > /dev/null\n"


def test_a_secret_counts_by_its_name(project: Project, tmp_path: Path) -> None:
    """As for a step, whose key has the id alone: another value makes no other image."""
    (project.root / "Dockerfile").write_text(SECRET)
    token, other = tmp_path / "token", tmp_path / "other"
    token.write_text("1")
    other.write_text("2")
    project.settle()
    image, _ = project.build("--secret", f"id=token,src={token}")
    assert project.build("--secret", f"id=token,src={token}") == (image, True)
    token.write_text("another value")
    assert project.build("--secret", f"id=token,src={token}") == (image, True)
    assert project.build("--secret", f"id=token,src={other}") == (image, False)
    kept = b"".join(path.read_bytes() for path in project.tierce.root.rglob("metadata*") if path.is_file())
    assert b"another value" not in kept


def test_a_secret_or_agent_that_is_gone_is_missed_at_once(project: Project, tmp_path: Path) -> None:
    (project.root / "Dockerfile").write_text(SECRET)
    token, agent = tmp_path / "token", tmp_path / "agent"
    token.write_text("1")
    project.settle()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(agent))
        flags = ("--secret", f"id=token,src={token}", "--ssh", f"default={agent}")
        image, _ = project.build(*flags)
        assert project.build(*flags) == (image, True)
        agent.unlink()
        refused = project.tierce.attempt("build", "--network=none", *flags, project.root)
        assert (refused.code, "is not a socket" in refused.stderr) == (1, True)
    token.unlink()
    refused = project.tierce.attempt("build", "--network=none", *flags[:2], project.root)
    assert (refused.code, "secret token" in refused.stderr) == (1, True)


def test_an_image_that_is_gone_is_built_again(project: Project) -> None:
    image, _ = project.build("-t", "app")
    project.tierce("rmi", "--force", image)
    assert project.build("-t", "app") == (image, False)


def test_names_come_back(project: Project) -> None:
    image, _ = project.build("-t", "app")
    project.tierce("tag", "busybox", "app")
    assert project.build("-t", "app") == (image, True)
    assert project.tierce("inspect", "--format", "{{.Id}}", "app").stdout.strip() == image
    project.tierce("system", "check")


def test_a_file_that_changed_just_now_is_not_trusted(project: Project) -> None:
    (project.root / "f").write_text("young")
    first, _ = project.build()
    after, _ = project.build()
    assert after == first


def test_warnings_are_shown_each_time(project: Project) -> None:
    (project.root / "Dockerfile").write_text("FROM busybox\nMAINTAINER me\nRUN true\n")
    project.settle()
    for _ in range(2):
        shown = project.tierce("build", "--progress", "plain", "--network=none", project.root)
        assert "MaintainerDeprecated" in shown.stderr


def test_steps_are_shown_as_cached(project: Project) -> None:
    flags = ("--progress", "plain", "--network=none", "-t", "app")
    project.tierce("build", *flags, project.root)
    usual = project.tierce("build", *flags, "--jobs", "2", project.root)
    remembered = project.tierce("build", *flags, project.root)
    assert remembered.stderr == usual.stderr
    assert remembered.stdout == usual.stdout
