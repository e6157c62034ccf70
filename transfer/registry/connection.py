"""One connection: a request out, the head of a reply in, and a deadline on all of it.

Built on ``http.client``, because nothing else in reach streams a body into a buffer that
the caller owns at memory speed.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from image.errors import RegistryError
from image.value import dataclass
from transfer.registry.proxies import Proxy
from transfer.registry.wire import Origin, Request, redact, request_target

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_BLOCK_SIZE: Final = 1 << 20
BROKEN: Final = (OSError, http.client.HTTPException, EOFError)
"""What a connection raises when it breaks."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. A body may take ``total_s`` plus one second for each ``slowest_rate`` bytes."""

    connect_s: float = 20.0
    idle_s: float = 60.0
    total_s: float = 120.0
    slowest_rate: int = 16 << 10

    def limit_s(self, size: int | None) -> float:
        """How long a request with a body of ``size`` bytes may take; None is a body of unknown size."""
        return self.total_s + (size if size is not None else 1 << 34) / self.slowest_rate


@dataclass(frozen=True, slots=True)
class Body:
    """An upload: its blocks, and its size in bytes where it is known (else sent chunked)."""

    blocks: Iterable[ReadableBuffer]
    size: int | None


class Connection(http.client.HTTPConnection):
    """One TCP or TLS connection, direct or through a proxy, with a deadline on every read."""

    def __init__(
        self,
        where: Origin,
        proxy: Proxy | None,
        context: ssl.SSLContext | None,
        timeouts: Timeouts,
        clock: Callable[[], float],
    ) -> None:
        to = proxy.origin if proxy else where
        super().__init__(to.host, to.port, timeout=timeouts.connect_s, blocksize=_BLOCK_SIZE)
        self.where = where
        self.used = False
        self.idle_since = 0.0
        self.peer: str | None = None
        self._proxy = proxy
        self._context = context
        self._timeouts = timeouts
        self._clock = clock
        self._deadline = 0.0
        self._forbid_local = False
        if proxy and context:
            self.set_tunnel(where.host, where.port, proxy.headers)

    def __hash__(self) -> int:
        return id(self)

    def prepare(self, deadline: float, forbid_local: bool) -> None:
        """Limits for the next exchange."""
        self._deadline = deadline
        self._forbid_local = forbid_local

    def connect(self) -> None:
        super().connect()
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.where.host)
        self.peer = None if self._proxy else self.sock.getpeername()[0]

    def perform(self, request: Request, body: Body | None) -> http.client.HTTPResponse:
        """Send a request and read the head of its reply."""
        if self.sock is None:
            self.connect()
        if self._forbid_local and self.peer is not None and is_local(self.peer):
            raise RegistryError(
                f"{request.method} {redact(request.url)}: refused a redirect to this machine", url=redact(request.url)
            )
        self.sock.settimeout(self._timeouts.idle_s)
        self._send_head(request, body)
        try:
            if body is not None:
                self._send_body(body)
        except (BrokenPipeError, ConnectionResetError):
            # A registry that refuses an upload answers and closes: the answer says why.
            with suppress(*BROKEN):
                return self.getresponse()
            raise
        return self.getresponse()

    def _send_head(self, request: Request, body: Body | None) -> None:
        target = request_target(request.url)
        through = self._proxy if self._context is None else None
        self.putrequest(
            request.method, self.where.url + target if through else target, skip_host=True, skip_accept_encoding=True
        )
        headers = {"Host": self.where.netloc, "User-Agent": "tierce", **request.headers}
        if through:
            headers |= through.headers
        if body is not None and body.size is None:
            headers["Transfer-Encoding"] = "chunked"
        elif body is not None or request.body or request.method in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = str(len(request.body) if body is None else body.size)
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders(request.body or None)

    def _send_body(self, body: Body) -> None:
        for block in body.blocks:
            view = memoryview(block).cast("B")
            if self._clock() > self._deadline:
                raise TimeoutError("the upload took too long")
            if not len(view):
                continue
            if body.size is None:
                self.send(b"%x\r\n" % len(view))
            self.send(view)
            if body.size is None:
                self.send(b"\r\n")
        if body.size is None:
            self.send(b"0\r\n\r\n")

    def response_class(  # type: ignore[override]  # the base class calls it as a factory
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_WithDeadline(sock, self), debuglevel, method, url)  # type: ignore[arg-type]

    def time_left_s(self) -> float:
        return self._deadline - self._clock()

    def idle_limit_s(self) -> float:
        return min(self._timeouts.idle_s, max(self.time_left_s(), 0.001))

    def shut(self) -> None:
        """Wake a thread that waits on this connection; it sees an end of the stream."""
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _WithDeadline:
    """What HTTPResponse takes for a socket: reads of it know the connection's deadline."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self._sock = sock
        self._connection = connection

    def makefile(self, _mode: str) -> io.BufferedReader:
        raw = self._sock.makefile("rb", buffering=0)
        return io.BufferedReader(_DeadlineReader(raw, self._sock, self._connection), 64 << 10)


class _DeadlineReader(io.RawIOBase):
    """Without the check before each read, one byte a minute would never run into the idle limit."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, connection: Connection) -> None:
        self._raw = raw
        self._sock = sock
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self._connection.time_left_s() <= 0:
            raise TimeoutError("the reply took too long")
        self._sock.settimeout(self._connection.idle_limit_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def is_local(peer: str) -> bool:
    address = ipaddress.ip_address(peer.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified)
