"""builder/steps/agents.py: a step's own socket in front of the user's agent."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.dockerfile.mounts import SshMount
from builder.steps.agents import forwarded
from image.errors import InvalidInput


@contextmanager
def agent(path: Path) -> Iterator[None]:
    """Answers each connection with what it got, in capitals, until it is hung up on."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data.upper())

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


def asked(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        answer += connection.recv(1 << 16)
    return answer


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Deeper than a socket's address may be long."""
    path = tmp_path / ("d" * 100) / ("e" * 100)
    path.mkdir(parents=True)
    return path


def test_connections_at_once_and_large_messages(tmp_path: Path, place: Path) -> None:
    with agent(tmp_path / "agent"), forwarded(tmp_path / "agent", SshMount(mode=0o640), place) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        short = tmp_path / "s"
        short.symlink_to(path)
        with connected(short) as one, connected(short) as two:
            assert asked(one, b"one") == b"ONE"
            assert asked(two, b"x" * 100_000) == b"X" * 100_000
            assert asked(one, b"again") == b"AGAIN"
            one.shutdown(socket.SHUT_WR)
            assert one.recv(1) == b"", "the end is passed on"
        with connected(short) as three:
            assert asked(three, b"three") == b"THREE"
    assert os.listdir(place) == []


def test_who_is_still_connected_at_the_end_is_hung_up_on(tmp_path: Path, place: Path) -> None:
    with agent(tmp_path / "agent"):
        with forwarded(tmp_path / "agent", SshMount(), place) as path:
            (tmp_path / "s").symlink_to(path)
            left = connected(tmp_path / "s")
            assert asked(left, b"x") == b"X"
        with left:
            assert left.recv(1) == b""
    assert not [thread for thread in threading.enumerate() if thread.name == "ssh-agent"]


def test_an_agent_that_has_ended(tmp_path: Path, place: Path) -> None:
    with (
        agent(tmp_path / "agent"),
        pytest.raises(InvalidInput, match=r"ssh agent k: .*/absent: no such file or directory: start ssh-agent"),
        forwarded(tmp_path / "absent", SshMount("k"), place),
    ):
        pass
    assert os.listdir(place) == []


@pytest.mark.root
def test_the_socket_has_the_owner_that_the_mount_names(tmp_path: Path, place: Path) -> None:
    with agent(tmp_path / "agent"), forwarded(tmp_path / "agent", SshMount(uid=7, gid=8), place) as path:
        assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (7, 8, 0o600)
