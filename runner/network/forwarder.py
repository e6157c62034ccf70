"""Published ports of an ordinary user's container on a bridge: each connection is made again inside.

The sockets on descriptors 4 and up are in the host's network namespace, where they were opened;
this process then moves to that of the container's bridge (descriptor 3), and there connects to the
container. What comes in on one side goes out on the other, and a slow side holds back a fast one.
The container sees the bridge as the client. Bounded: connections and datagram clients above the
limit wait, or push out the one that was silent longest.
"""

from __future__ import annotations

import os
import select
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from store.linux import processes

_NAMESPACE: Final = 3
_FIRST: Final = 4
_BLOCK: Final = 1 << 16
_MOST_CLIENTS: Final = 512
_BACKLOG: Final = 128
Target = tuple[str, int]
Ready = Callable[[int], None]


class Loop:
    """Calls whoever waits for a descriptor, with what happened there."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, Ready] = {}

    def watch(self, fd: int, events: int, ready: Ready) -> None:
        if not events:
            self.forget(fd)  # else a closed side would be told again and again
            return
        if fd in self._waiting:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._waiting[fd] = ready

    def forget(self, fd: int) -> None:
        if self._waiting.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        """For ever."""
        while True:
            for fd, events in self._epoll.poll():
                if ready := self._waiting.get(fd):
                    ready(events)


class Half:
    """One direction of a connection: what was read and not yet written."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.pending = b""
        self.ended = False

    def read(self) -> None:
        """Raises OSError when the other side is gone."""
        if self.pending or self.ended:
            return
        with suppress(BlockingIOError):
            self.pending = self.source.recv(_BLOCK)
            self.ended = not self.pending
            if self.ended:
                self.sink.shutdown(socket.SHUT_WR)
            self.write()

    def write(self) -> None:
        """Raises OSError."""
        if self.pending:
            with suppress(BlockingIOError):
                self.pending = self.pending[self.sink.send(self.pending) :]


class Connection:
    """A client of a published TCP port, and its connection to the container."""

    def __init__(self, loop: Loop, client: socket.socket, target: Target, closed: Callable[[], None]) -> None:
        self._loop = loop
        self._closed = closed
        self._connected = False
        self._client = client
        self._server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        client.setblocking(False)
        self._halves = (Half(client, self._server), Half(self._server, client))
        try:
            with suppress(BlockingIOError):
                self._server.connect(target)
        except OSError:  # no way to the container
            self._close()
            return
        loop.watch(self._server.fileno(), select.EPOLLOUT, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if not self._connected:
                if problem := self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(problem, os.strerror(problem))
                self._connected = True
            for half in self._halves:
                half.write()
                half.read()
        except OSError:
            self._close()
            return
        if all(half.ended and not half.pending for half in self._halves) or events & select.EPOLLERR:
            self._close()
            return
        out, back = self._halves
        self._loop.watch(self._client.fileno(), _events(out, back), self._ready)
        self._loop.watch(self._server.fileno(), _events(back, out), self._ready)

    def _close(self) -> None:
        for end in (self._client, self._server):
            self._loop.forget(end.fileno())
            end.close()
        self._closed()


def _events(reading: Half, writing: Half) -> int:
    """What to wait for at the source of one half, which is the sink of the other."""
    wanted = 0 if reading.pending or reading.ended else select.EPOLLIN
    return wanted | (select.EPOLLOUT if writing.pending else 0)


class StreamPort:
    """Takes connections, as many at a time as are allowed."""

    def __init__(self, loop: Loop, listener: socket.socket, target: Target) -> None:
        self._loop, self._listener, self._target = loop, listener, target
        self._clients = 0
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        loop.watch(listener.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:  # it went away again
            return
        self._clients += 1
        if self._clients >= _MOST_CLIENTS:
            self._loop.forget(self._listener.fileno())
        Connection(self._loop, client, self._target, self._one_less)

    def _one_less(self) -> None:
        self._clients -= 1
        self._loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)


class DatagramPort:
    """A socket towards the container for each client, so that answers find their way."""

    def __init__(self, loop: Loop, outer: socket.socket, target: Target) -> None:
        self._loop, self._outer, self._target = loop, outer, target
        self._inner: OrderedDict[object, socket.socket] = OrderedDict()
        outer.setblocking(False)
        loop.watch(outer.fileno(), select.EPOLLIN, self._take)

    def _take(self, _: int) -> None:
        with suppress(OSError):
            data, client = self._outer.recvfrom(_BLOCK)
            self._towards(client).send(data)

    def _towards(self, client: object) -> socket.socket:
        if (known := self._inner.get(client)) is not None:
            self._inner.move_to_end(client)
            return known
        if len(self._inner) >= _MOST_CLIENTS:
            _, oldest = self._inner.popitem(last=False)
            self._loop.forget(oldest.fileno())
            oldest.close()
        inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        inner.connect(self._target)
        self._inner[client] = inner
        self._loop.watch(inner.fileno(), select.EPOLLIN, lambda _: self._answer(inner, client))
        return inner

    def _answer(self, inner: socket.socket, client: object) -> None:
        with suppress(OSError):
            self._outer.sendto(inner.recv(_BLOCK), client)  # type: ignore[call-overload]  # an address, as recvfrom gave it


def main(targets: Sequence[str]) -> None:
    """``PROTOCOL:ADDRESS:PORT`` for each descriptor from 4 on. Ends by a signal."""
    processes.setns(_NAMESPACE, processes.CLONE_NEWNET)
    loop = Loop()
    for fd, target in enumerate(targets, _FIRST):
        protocol, address, port = target.split(":")
        kind = StreamPort if protocol == "tcp" else DatagramPort
        kind(loop, socket.socket(fileno=fd), (address, int(port)))
    loop.run()
