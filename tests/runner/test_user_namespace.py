"""Which ids an ordinary user has, and how they are mapped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runner.network.outward import pasta_arguments, slirp_requests
from runner.network.ports import Port
from runner.runtime.user_namespace import map_arguments, parse_ranges
from store.owners import Record


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("alice:100000:65536\n", ((100000, 65536),), id="by-name"),
        pytest.param("1000:5:6\n", ((5, 6),), id="by-number"),
        pytest.param("bob:1:2\nalice:3:4\nalice:9:1\n", ((3, 4), (9, 1)), id="several"),
        pytest.param("alice:x:65536\nalice:1\n\nalice:7:0\n#alice:1:1\n", (), id="malformed"),
        pytest.param("alice2:1:2\n", (), id="another"),
    ],
)
def test_ranges(text: str, found: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(text, "alice", 1000) == found


def test_the_users_own_id_is_root_and_ranges_follow() -> None:
    assert map_arguments(1000, ((100000, 10), (500, 5))) == ["0", "1000", "1", "1", "100000", "10", "11", "500", "5"]


def test_ports_for_pasta() -> None:
    words = pasta_arguments("/n", "/r", [Port(80, 8080), Port(53, 5353, "127.0.0.1", "udp")])
    assert words[words.index("--tcp-ports") + 1] == "8080:80"
    assert words[words.index("--udp-ports") + 1] == "127.0.0.1/5353:53"


def test_ports_for_slirp4netns() -> None:
    assert b'"host_addr": "127.0.0.1", "host_port": 8080, "guest_port": 80' in next(
        slirp_requests([Port(80, 8080, "127.0.0.1")])
    )


@pytest.mark.parametrize(
    ("data", "record"),
    [
        pytest.param(b"33:44", Record(33, 44), id="owner"),
        pytest.param(b"0:6:c:259", Record(0, 6, 0o20000, 259), id="character-device"),
        pytest.param(b"0:6:b:2048", Record(0, 6, 0o60000, 2048), id="block-device"),
        pytest.param(b"33", None, id="too-short"),
        pytest.param(b"-1:0", None, id="negative"),
        pytest.param(b"4294967296:0", None, id="too-large"),
        pytest.param(b"0:0:d:1", None, id="no-such-kind"),
    ],
)
def test_records(data: bytes, record: Record | None) -> None:
    assert Record.decode(data) == record
    if record is not None:
        assert record.encode() == data


_COMMAND = """
import os, sys
from runner.runtime.user_namespace import enter
how = enter({"TIERCE_RUNTIME_DIR": sys.argv[1]}).how
print(how, os.stat("/proc/self/ns/user").st_ino, os.getuid(), os.getgid(), flush=True)
sys.stdin.read()
"""


def _start(runtime: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _COMMAND, str(runtime)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _namespace(process: subprocess.Popen[str]) -> str:
    """The inode of the user namespace that a command has come to, where it is root."""
    assert process.stdout is not None
    how, inode, *ids = process.stdout.readline().split()
    if how == "no":
        pytest.skip("needs user namespaces")
    assert ids == ["0", "0"]
    return inode


@contextmanager
def _command(runtime: Path) -> Iterator[str]:
    """A command in its user namespace: the namespace's inode, while it lives."""
    with _start(runtime) as process:
        try:
            yield _namespace(process)
        finally:
            process.communicate()


def test_commands_share_a_namespace_while_one_of_them_lives(tmp_path: Path) -> None:
    with ExitStack() as second:
        with _command(tmp_path) as first:
            assert second.enter_context(_command(tmp_path)) == first
        with _command(tmp_path) as third:  # the one that made it has ended
            assert third == first
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_commands_that_start_together_agree(tmp_path: Path) -> None:
    starting = [_start(tmp_path) for _ in range(6)]
    try:
        assert len({_namespace(process) for process in starting}) == 1
    finally:
        for process in starting:
            process.communicate()


def test_a_killed_command_is_no_holder(tmp_path: Path) -> None:
    with _start(tmp_path) as killed:
        _namespace(killed)
        killed.kill()
    with _command(tmp_path) as second, _command(tmp_path) as third:
        assert second == third


def test_a_directory_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "user-namespace").mkdir()
    (tmp_path / "user-namespace").chmod(0o777)
    with _command(tmp_path) as first, _command(tmp_path) as second:
        assert first != second
    assert list((tmp_path / "user-namespace").iterdir()) == []
