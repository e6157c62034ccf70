"""``--pid container:X`` and ``--ipc container:X``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cli import Tierce

pytestmark = pytest.mark.root


@pytest.fixture
def other(tierce_with_busybox: Tierce) -> Iterator[Tierce]:
    """Tierce with a container that runs, called ``one``."""
    words = ("--name", "one", "--network", "none", "--ipc", "shareable", "busybox", "sh", "-c")
    tierce_with_busybox("run", "--detach", *words, "exec sleep 1234")
    yield tierce_with_busybox
    tierce_with_busybox("rm", "--force", "one")


def _run(tierce: Tierce, flag: str, mode: str, script: str) -> str:
    return tierce("run", "--rm", "--network", "none", flag, mode, "busybox", "sh", "-c", script).stdout


def test_processes(other: Tierce) -> None:
    assert "    1 root     sleep 1234\n" in _run(other, "--pid", "container:one", "ps")


@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_its_namespace_is_the_others(other: Tierce, kind: str) -> None:
    look = f"readlink /proc/self/ns/{kind}"
    theirs = other("exec", "one", "sh", "-c", look).stdout
    assert _run(other, f"--{kind}", "container:one", look) == theirs
    assert other("run", "--rm", "--network", "none", "busybox", "sh", "-c", look).stdout != theirs


@pytest.mark.parametrize("flag", ["--pid", "--ipc"])
def test_one_that_does_not_run(other: Tierce, flag: str) -> None:
    other("kill", "one")
    for name, why in (("one", "is not running"), ("absent", "no such container")):
        result = other.attempt("run", "--rm", "--network", "none", flag, f"container:{name}", "busybox", "true")
        assert result.code == 125
        assert why in result.stderr.lower()


def test_shared_memory_is_the_others_too(other: Tierce) -> None:
    other("exec", "one", "sh", "-c", "echo theirs > /dev/shm/x")
    assert _run(other, "--ipc", "container:one", "cat /dev/shm/x; echo mine > /dev/shm/y") == "theirs\n"
    assert other("exec", "one", "cat", "/dev/shm/y").stdout == "mine\n"
    options = _run(other, "--ipc", "container:one", "grep ' /dev/shm ' /proc/mounts").split()[3]
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))


@pytest.mark.parametrize("mode", ["private", "none"])
def test_ipc_that_is_not_shareable(mode: str, other: Tierce) -> None:
    other("run", "--detach", "--name", "own", "--network", "none", "--ipc", mode, "busybox", "sleep", "60")
    result = other.attempt("run", "--rm", "--network", "none", "--ipc", "container:own", "busybox", "true")
    assert (result.code, "create that one with --ipc shareable" in result.stderr) == (125, True)
    other("rm", "--force", "own")
