"""Published ports of an ordinary user's container on a bridge: each connection is made again inside.

The sockets on descriptors 4 and up are in the host's network namespace, where they were opened;
this process then moves to that of the container's bridge (descriptor 3), and there connects to the
container, whose record says each time where it is: it may have changed networks. What comes in on one side goes out on the other, and a slow side holds back a fast one.
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
Find = Callable[[], Target | None]
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
    """Takes connections, as many at a time as are allowed.

    The listener is told of once for each change, as others may shut it and open it again
    (``listeners``): it would be told of without end meanwhile.
    """

    def __init__(self, loop: Loop, listener: socket.socket, find: Find) -> None:
        self._loop, self._listener, self._find = loop, listener, find
        self._clients = 0
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        self._loop.watch(self._listener.fileno(), select.EPOLLIN | select.EPOLLET, self._accept)

    def _accept(self, _: int) -> None:
        while self._clients < _MOST_CLIENTS:
            try:
                client, _address = self._listener.accept()
            except OSError:  # nobody more, or it is shut
                return
            if (target := self._find()) is None:
                client.close()
                continue
            self._clients += 1
            Connection(self._loop, client, target, self._one_less)

    def _one_less(self) -> None:
        self._clients -= 1
        self._watch()


class DatagramPort:
    """A socket towards the container for each client, so that answers find their way."""

    def __init__(self, loop: Loop, outer: socket.socket, find: Find) -> None:
        self._loop, self._outer, self._find = loop, outer, find
        self._target: Target | None = None
        self._inner: OrderedDict[object, socket.socket] = OrderedDict()
        outer.setblocking(False)
        loop.watch(outer.fileno(), select.EPOLLIN, self._take)

    def _take(self, _: int) -> None:
        with suppress(OSError):
            data, client = self._outer.recvfrom(_BLOCK)
            if (target := self._find()) != self._target:
                while self._inner:
                    self._end_oldest()
                self._target = target
            if target is not None:
                self._towards(client, target).send(data)

    def _towards(self, client: object, target: Target) -> socket.socket:
        if (known := self._inner.get(client)) is not None:
            self._inner.move_to_end(client)
            return known
        if len(self._inner) >= _MOST_CLIENTS:
            self._end_oldest()
        inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        inner.connect(target)
        self._inner[client] = inner
        self._loop.watch(inner.fileno(), select.EPOLLIN, lambda _: self._answer(inner, client))
        return inner

    def _end_oldest(self) -> None:
        _, oldest = self._inner.popitem(last=False)
        self._loop.forget(oldest.fileno())
        oldest.close()

    def _answer(self, inner: socket.socket, client: object) -> None:
        with suppress(OSError):
            self._outer.sendto(inner.recv(_BLOCK), client)  # type: ignore[call-overload]  # an address, as recvfrom gave it


class Whereabouts:
    """Where a published port of a container leads to now, by the container's record; see ``endpoints``."""

    def __init__(self, directory: str, outer: socket.socket) -> None:
        address, number = outer.getsockname()[:2]
        protocol = "tcp" if outer.type == socket.SOCK_STREAM else "udp"
        self._port = ["port", protocol, address, str(number)]
        self._path = f"{directory}/network"
        self._seen: tuple[int, int] | None = None
        self._target: Target | None = None

    def __call__(self) -> Target | None:
        try:
            with open(self._path) as file:
                found = os.fstat(file.fileno())
                if (found.st_ino, found.st_mtime_ns) != self._seen:
                    self._target = self._look([line.split(" ") for line in file.read().splitlines()])
                    self._seen = found.st_ino, found.st_mtime_ns
        except OSError:  # the container has gone
            return None
        return self._target

    def _look(self, lines: Sequence[Sequence[str]]) -> Target | None:
        address = ""
        for words in lines:
            if words[0] in ("on", "within"):
                address = words[5]
            elif words[:4] == self._port:
                return address, int(words[4])
        return None


def main(argv: Sequence[str]) -> None:
    """The container's directory below the runtime directory; sockets on descriptors 4 and up. Ends by a signal."""
    directory, count = argv
    processes.setns(_NAMESPACE, processes.CLONE_NEWNET)
    loop = Loop()
    for fd in range(_FIRST, _FIRST + int(count)):
        outer = socket.socket(fileno=fd)
        kind = StreamPort if outer.type == socket.SOCK_STREAM else DatagramPort
        kind(loop, outer, Whereabouts(directory, outer))
    loop.run()
