"""Who is connected to a monitor: the command that started the container, and those that came later.

Nobody here can make the monitor wait. Imports only what a bare interpreter has.
"""

from __future__ import annotations

import _socket
import posix
import select

from runner.containers import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_WAITING = 1 << 20
"""Bytes that a slow client may leave unread; then it is let go, and the log has the rest."""


class Client:
    """One connection."""

    def __init__(
        self, fd: int, *, attached: bool = False, patient: bool = False, waiting: bytes = b"", heard: bytes = b""
    ) -> None:
        posix.set_blocking(fd, False)
        self.fd = fd
        self.attached = attached
        self.patient = patient
        """Whether the container waits for it: a foreground command's reader slows the container down."""
        self.waiting = waiting
        self.frames = wire.Frames(heard)

    @property
    def state(self) -> tuple[int, bool, bool, bytes, bytes]:
        """For ``Clients.of``, in another program of this process."""
        return self.fd, self.attached, self.patient, self.waiting, self.frames.rest

    def send(self, data: bytes = b"") -> None:
        """This, after what waits. Raises OSError when nobody listens."""
        self.waiting += data
        try:
            while self.waiting:
                self.waiting = self.waiting[posix.write(self.fd, self.waiting) :]
        except BlockingIOError:
            pass

    @property
    def is_full(self) -> bool:
        return len(self.waiting) > _MOST_WAITING


class Clients:
    """All of them, and the socket where they come from: -1 while nobody can come."""

    def __init__(self, clients: list[Client], listener: int = -1) -> None:
        self._clients = clients
        self.listener = listener

    @classmethod
    def of(cls, states: tuple[tuple[int, bool, bool, bytes, bytes], ...], listener: int = -1) -> Clients:
        found = [
            Client(fd, attached=attached, patient=patient, waiting=waiting, heard=heard)
            for fd, attached, patient, waiting, heard in states
        ]
        return cls(found, listener)

    @property
    def states(self) -> tuple[tuple[int, bool, bool, bytes, bytes], ...]:
        return tuple(client.state for client in self._clients)

    @property
    def hold_up(self) -> bool:
        """Whether output has to wait for one of them."""
        return any(client.patient and client.is_full for client in self._clients)

    def interests(self, *, hear: bool) -> dict[int, int]:
        """What to poll for. Without ``hear`` nothing that they say."""
        found = {self.listener: select.POLLIN} if self.listener >= 0 else {}
        for client in self._clients:
            found[client.fd] = (select.POLLOUT if client.waiting else 0) | (select.POLLIN if hear else 0)
        return found

    def serve(self, events: dict[int, int], obey: Callable[[Client, bytes, bytes], None]) -> None:
        """Take newcomers, give what waits, hear. ``obey`` gets each frame."""
        if self.listener in events:
            self._accept()
        for client in list(self._clients):
            if client.fd in events:
                self._give(client)
                if events[client.fd] & ~select.POLLOUT:
                    self._hear(client, obey)

    def tell(self, kind: bytes, body: bytes = b"") -> None:
        """Everybody."""
        for client in list(self._clients):
            self._give(client, wire.frame(kind, body))

    def show(self, kind: bytes, data: bytes) -> None:
        """Output, for those that are attached."""
        for client in list(self._clients):
            if client.attached:
                self._give(client, wire.frame(kind, data))
                if client.is_full and not client.patient:
                    self._drop(client)

    def drain(self) -> None:
        """Clients that are slow get the rest, as long as they listen."""
        while waiting := [client for client in self._clients if client.waiting]:
            poller = select.poll()
            for client in waiting:
                poller.register(client.fd, select.POLLOUT)
            poller.poll()
            for client in waiting:
                self._give(client)

    def stop_listening(self) -> None:
        """Whoever has come by now is a client, and nobody comes any more."""
        while self._accept():
            pass
        posix.close(self.listener)
        self.listener = -1

    def _accept(self) -> bool:
        listener = _socket.socket(fileno=self.listener)
        try:
            self._clients.append(Client(listener._accept()[0]))  # type: ignore[attr-defined]  # what socket.accept calls
        except OSError:
            return False
        finally:
            listener.detach()
        return True

    def _hear(self, client: Client, obey: Callable[[Client, bytes, bytes], None]) -> None:
        try:
            data = posix.read(client.fd, wire.CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        for kind, body in client.frames.feed(data):
            obey(client, kind, body)

    def _give(self, client: Client, data: bytes = b"") -> None:
        try:
            client.send(data)
        except OSError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            client.waiting = b""
            posix.close(client.fd)
