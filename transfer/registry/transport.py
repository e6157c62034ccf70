"""The only HTTP of the project: connections, redirects, time limits.

Built on ``http.client``, because nothing else in reach streams a body into a buffer that
the caller owns at memory speed. A ``Transport`` is used by any number of threads; each
request has a connection to itself, taken from a small pool.

Three limits keep a slow or hostile peer from holding us: connecting, silence, and a total
that grows with the size of the body. ``abort`` wakes every thread that waits here.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from image.errors import Cancelled, RegistryError
from transfer.registry.connection import BROKEN, Body, Connection, Timeouts
from transfer.registry.limits import Gate, Limits
from transfer.registry.pace import Pace
from transfer.registry.proxies import proxy_for
from transfer.registry.replies import pause_s
from transfer.registry.tls import tls_context
from transfer.registry.wire import (
    MAX_ERROR_SIZE,
    Headers,
    Origin,
    Request,
    is_private,
    origin,
    redact,
    redirected,
)

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import WriteableBuffer

__all__ = ("Body", "Reply", "Timeouts", "Transport", "failure")

_MAX_REDIRECTS: Final = 8
LONGEST_PAUSE_S: Final = 60.0
"""As long as a try of ``Retry`` waits."""
_MAX_IDLE: Final = 8
"""Connections kept for a host."""
_FRESH_S: Final = 2.0
"""A connection idle for longer may be closed by its peer just as a body that can't be repeated starts."""


class Transport:
    """Sends requests. ``verify`` False accepts any certificate (``--tls-verify=false``).

    ``peer`` is what messages call those at the other end.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        verify: bool = True,
        certificates: tuple[Path, ...] = (),
        cert_dir: Path | None = None,
        timeouts: Timeouts = Timeouts(),
        limits: Limits = Limits(),
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        peer: str = "registry",
    ) -> None:
        self.verify = verify
        self.peer = peer
        self.timeouts = timeouts
        self.clock = clock
        self._gate = Gate(limits, clock, pace or Pace(LONGEST_PAUSE_S))
        self._environ = environ
        self._certificates = certificates
        self._cert_dir = cert_dir
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._aborted = threading.Event()

    def scoped(self) -> Transport:
        """The same connections for one transfer, which ``abort`` ends without ending others."""
        other = copy(self)
        other._busy = set()
        other._aborted = threading.Event()
        return other

    def send(self, request: Request, body: Body | None = None, *, size: int | None = 0) -> Reply:
        """The reply to a request, redirects followed (never with a streamed body).

        ``size`` is the number of bytes the exchange may carry, for its time limit. Any status
        is a reply; raises RegistryError when there is none, Cancelled after ``abort``.
        """
        forbid_local = False
        for _ in range(_MAX_REDIRECTS):
            reply = self._exchange(request, body, self.timeouts.limit_s(size), forbid_local)
            if pause := pause_s(reply.status, reply.headers, time.time()):
                self._gate.pace.pause(origin(request.url), pause)
            if not _follows(request, reply.status) or body is not None or reply.headers.get("Location") is None:
                return reply
            with reply:
                forbid_local = reply.peer is not None and not is_private(reply.peer)
                following = redirected(request, reply.headers)
            if request.body and origin(following.url) != origin(request.url):
                raise RegistryError(
                    f"{request.method} {redact(request.url)}: refused a redirect of a form to another host",
                    url=redact(request.url),
                )
            request = following
        raise RegistryError(f"{request.method} {redact(request.url)}: too many redirects", url=redact(request.url))

    def sleep(self, seconds: float) -> None:
        """Wait, unless aborted: then Cancelled."""
        if self._aborted.wait(seconds):
            raise Cancelled("the transfer was stopped")

    def abort(self) -> None:
        """Stop everything under way, in every thread; later calls raise Cancelled."""
        self._aborted.set()
        with self._lock:
            busy = list(self._busy)
        for connection in busy:
            connection.shut()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle = [connection for pool in self._idle.values() for connection in pool]
            self._idle.clear()
        for connection in idle:
            connection.close()

    # One exchange

    def _exchange(self, request: Request, body: Body | None, limit_s: float, forbid_local: bool) -> Reply:
        where = origin(request.url)
        if body is not None:
            self._gate.wait(where, self.sleep)
            return self._attempt(where, request, body, limit_s, forbid_local)
        with self._gate.turn(where, self.sleep):
            return self._attempt(where, request, None, limit_s, forbid_local)

    def _attempt(self, where: Origin, request: Request, body: Body | None, limit_s: float, forbid_local: bool) -> Reply:
        while True:
            connection = self._take(where, only_fresh=body is not None)
            reused = connection.used
            try:
                if self._aborted.is_set():
                    raise Cancelled("the transfer was stopped")
                connection.prepare(self.clock() + limit_s, forbid_local)
                return Reply(self, connection, request, connection.perform(request, body))
            except BROKEN as error:
                self._drop(connection)
                if self._aborted.is_set():
                    raise Cancelled("the transfer was stopped") from error
                if reused and body is None and not isinstance(error, TimeoutError):
                    continue  # the peer closed an idle connection: that says nothing about this request
                raise failure(request, error, self.peer) from error
            except BaseException:
                self._drop(connection)
                raise

    def _take(self, where: Origin, *, only_fresh: bool) -> Connection:
        with self._lock:
            pool = self._idle.get(where, [])
            while pool:
                connection = pool.pop()
                if not only_fresh or self.clock() - connection.idle_since < _FRESH_S:
                    break
                connection.close()
            else:
                connection = self._new(where)
            self._busy.add(connection)
            return connection

    def _new(self, where: Origin) -> Connection:
        proxy = proxy_for(where, self._environ)
        context = self._context(where.netloc) if where.scheme == "https" else None
        return Connection(where, proxy, context, self.timeouts, self.clock)

    def _context(self, host: str) -> ssl.SSLContext:
        if host not in self._contexts:
            where = [self._cert_dir] if self._cert_dir else [directory / host for directory in self._certificates]
            self._contexts[host] = tls_context(where, verify=self.verify, must_exist=self._cert_dir is not None)
        return self._contexts[host]

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _give_back(self, connection: Connection) -> None:
        """Keep a connection whose reply was read to the end."""
        with self._lock:
            self._busy.discard(connection)
            pool = self._idle.setdefault(connection.where, [])
            if connection.sock is not None and len(pool) < _MAX_IDLE and not self._aborted.is_set():
                connection.idle_since = self.clock()
                connection.used = True
                pool.append(connection)
                return
        connection.close()


class Reply:
    """A status, headers and a body that is read into the caller's buffer. Close it."""

    def __init__(
        self, transport: Transport, connection: Connection, request: Request, response: http.client.HTTPResponse
    ) -> None:
        self._transport = transport
        self._connection: Connection | None = connection
        self._response = response
        self._request = request
        self.status = response.status
        self.headers = Headers(tuple(response.getheaders()))
        self.peer = connection.peer
        self._error: bytes | None = None

    @property
    def url(self) -> str:
        """Where the reply came from, after redirects."""
        return self._request.url

    @property
    def method(self) -> str:
        return self._request.method

    def readinto(self, buffer: WriteableBuffer) -> int:
        """The next bytes of the body; 0 at its end. Raises RegistryError (temporary) when it breaks."""
        try:
            return self._response.readinto(memoryview(buffer))
        except BROKEN as error:
            raise self._failure(error) from error

    def read(self, limit: int) -> bytes:
        """A small body, whole. Raises RegistryError when it is longer than ``limit`` bytes."""
        data = self.read_some(limit + 1)
        if len(data) > limit:
            raise RegistryError(
                f"{self._request.method} {redact(self.url)}: the reply is larger than {limit} bytes",
                method=self._request.method, url=redact(self.url), status=self.status,
            )  # fmt: skip
        return data

    def read_some(self, limit: int) -> bytes:
        """At most ``limit`` bytes of the body."""
        try:
            return self._response.read(limit)
        except BROKEN as error:
            raise self._failure(error) from error

    def error_body(self) -> bytes:
        """The start of an error's body, as much as is worth looking at. May be asked for twice."""
        if self._error is None:
            try:
                self._error = self.read_some(MAX_ERROR_SIZE)
            except RegistryError:
                self._error = b""  # the status says enough
        return self._error

    def _failure(self, error: BaseException) -> Exception:
        if self._transport._aborted.is_set():
            return Cancelled("the transfer was stopped")
        return failure(self._request, error, self._transport.peer)

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else close it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._response.isclosed() and not self._response.will_close:
            self._transport._give_back(connection)
        else:
            self._response.close()
            self._transport._drop(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None and not self._response.isclosed():
            with suppress(RegistryError, Cancelled):
                self.read_some(64 << 10)  # a short rest is cheaper to read than a connection to make
        self.close()


def _follows(request: Request, status: int) -> bool:
    return status in {307, 308} or (status in {301, 302, 303} and request.method in {"GET", "HEAD"})


# Failures


def failure(request: Request, error: BaseException, peer: str) -> RegistryError:
    """What a broken exchange means to the user, and whether trying again can help."""
    where = origin(request.url)
    reason, again = _reason(where, error, peer)
    return RegistryError(
        f"reach {peer} {where.netloc}: {reason}", method=request.method, url=redact(request.url), temporary=again
    )


def _reason(where: Origin, error: BaseException, peer: str) -> tuple[str, bool]:
    if isinstance(error, socket.gaierror):
        return "the host name is unknown: check the name and the network", False
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused: is the {peer} running, and is the port right?", False
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"put its authority in /etc/docker/certs.d/{where.netloc}/ca.crt, or use --tls-verify=false"
        return f"its certificate is not trusted ({error.verify_message}): {advice}", False
    if isinstance(error, ssl.SSLError) and error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}:
        return f"it does not speak https: use --tls-verify=false for a {peer} without TLS", False
    if isinstance(error, TimeoutError):
        return "it did not answer in time", True
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower(), isinstance(error, ConnectionError | ssl.SSLError)
    if isinstance(error, OSError):
        return "the connection broke", True
    return f"the reply is not valid HTTP ({type(error).__name__})", isinstance(
        error, http.client.IncompleteRead | http.client.RemoteDisconnected
    )
