"""Connections and datagrams that pass through ``runner.network.forwarder``, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from runner.network.forwarder import DatagramPort, Loop, StreamPort

ANY_PORT = ("127.0.0.1", 0)
TIMEOUT_S = 20


@pytest.fixture
def loop() -> Loop:
    """To be given its ports by the test, then run until the process ends."""
    return Loop()


def serving(serve: Callable[[socket.socket], None], kind: socket.SocketKind) -> tuple[str, int]:
    """The address of a server, which has a thread of its own."""
    server = socket.socket(socket.AF_INET, kind)
    server.bind(ANY_PORT)
    if kind is socket.SOCK_STREAM:
        server.listen()
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    address: tuple[str, int] = server.getsockname()
    return address


def forwarded(loop: Loop, port: type[StreamPort | DatagramPort], target: tuple[str, int]) -> tuple[str, int]:
    kind = socket.SOCK_STREAM if port is StreamPort else socket.SOCK_DGRAM
    outer = socket.socket(socket.AF_INET, kind)
    outer.bind(ANY_PORT)
    port(loop, outer, lambda: target)
    threading.Thread(target=loop.run, daemon=True).start()
    address: tuple[str, int] = outer.getsockname()
    return address


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def reversing(server: socket.socket) -> None:
    """Answers once it has heard the end."""
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(read_all(connection)[::-1])


def test_much_goes_both_ways_and_the_end_is_told(loop: Loop) -> None:
    """More than all buffers on the way hold."""
    address = forwarded(loop, StreamPort, serving(reversing, socket.SOCK_STREAM))
    data = os.urandom(5 << 20)
    for _ in range(2):
        with socket.create_connection(address, timeout=TIMEOUT_S) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == data[::-1]


def test_nobody_listens_inside(loop: Loop) -> None:
    """The client hears the end, and the next one is served no worse."""
    with socket.socket() as free:
        free.bind(ANY_PORT)
        target = free.getsockname()
    address = forwarded(loop, StreamPort, target)
    for _ in range(3):
        with socket.create_connection(address, timeout=TIMEOUT_S) as client, suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_datagrams_find_their_way_back(loop: Loop) -> None:
    def numbering(server: socket.socket) -> None:
        while True:
            data, client = server.recvfrom(1 << 16)
            server.sendto(data + str(client[1]).encode(), client)

    address = forwarded(loop, DatagramPort, serving(numbering, socket.SOCK_DGRAM))
    answers = set()
    for name in (b"a:", b"b:"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT_S)
            client.sendto(name, address)
            first = client.recv(100)
            client.sendto(name, address)
            assert client.recv(100) == first  # the same socket inside
            assert first.startswith(name)
            answers.add(first[2:])
    assert len(answers) == 2


def test_connections_without_a_way_to_the_container_take_no_place(loop: Loop) -> None:
    """More of them than may be there at a time."""
    address = forwarded(loop, StreamPort, ("255.255.255.255", 1))
    for _ in range(600):
        with socket.create_connection(address, TIMEOUT_S) as connection, suppress(ConnectionResetError):
            assert connection.recv(1) == b""
