"""A docker daemon, as far as images go in and out of it as archives: its API over a socket or TLS.

Spec: Docker Engine API, "Images": /images/{name}/json, /images/{name}/get, /images/load.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from image.errors import InvalidInput, ReferenceNotFound, RegistryError
from image.value import dataclass
from transfer.ports import Block

if TYPE_CHECKING:
    import ssl

_DEFAULT: Final = "unix:///var/run/docker.sock"
_PLAIN_PORT: Final = 2375
_TLS_PORT: Final = 2376
_IDLE_S: Final = 600.0
"""How long the daemon may be silent: while it unpacks a large layer it says nothing."""
_BLOCK: Final = 1 << 20
_REPLY_LIMIT: Final = 1 << 20
_BROKEN: Final = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Engine:
    """Where a daemon listens. ``certificates`` is a directory of ca.pem, cert.pem and key.pem, None for no TLS."""

    host: str = _DEFAULT
    certificates: Path | None = None
    verify: bool = True

    @classmethod
    def of(
        cls,
        environ: Mapping[str, str],
        host: str | None = None,
        certificates: Path | None = None,
        *,
        verify: bool = True,
    ) -> Engine:
        """The daemon that docker's client would ask: DOCKER_HOST, and TLS by DOCKER_CERT_PATH or DOCKER_TLS_VERIFY."""
        if certificates is None and (found := environ.get("DOCKER_CERT_PATH")):
            certificates = Path(found)
        if certificates is None and environ.get("DOCKER_TLS_VERIFY"):
            certificates = Path(environ.get("HOME", "/"), ".docker")
        return cls(host or environ.get("DOCKER_HOST") or _DEFAULT, certificates, verify)

    def connect(self) -> http.client.HTTPConnection:
        """Raises InvalidInput for a host that is none, RegistryError when nobody listens there."""
        connection = self._connection()
        connection.auto_open = 0  # what broke must not go on over another connection
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            why = error.strerror or str(error)
            raise RegistryError(
                f"connect to the docker daemon at {self.host}: {why.lower()}: is it running?"
            ) from error
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        url = urlsplit(self.host)
        try:
            name, port = url.hostname or "", url.port
        except ValueError:
            raise InvalidInput(f"docker daemon {self.host[:200]!r}: the port is not a number") from None
        if url.scheme == "unix" and url.path:
            return _OverSocket(url.path)
        if url.scheme == "ssh":
            raise InvalidInput(f"docker daemon {self.host[:200]!r}: forward its socket by ssh -L, and name that")
        if url.scheme not in {"tcp", "http", "https"} or not name:
            raise InvalidInput(f"docker daemon {self.host[:200]!r}: want unix:///PATH or tcp://HOST:PORT")
        if url.scheme == "https" or (url.scheme == "tcp" and self.certificates is not None):
            context = _tls(self.certificates, verify=self.verify)
            return http.client.HTTPSConnection(name, port or _TLS_PORT, timeout=_IDLE_S, context=context)
        return http.client.HTTPConnection(name, port or _PLAIN_PORT, timeout=_IDLE_S)


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_IDLE_S, blocksize=_BLOCK)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def _tls(directory: Path | None, *, verify: bool) -> ssl.SSLContext:
    import ssl

    def refuse() -> str:
        raise InvalidInput(f"read {directory}/key.pem: it is encrypted, and there is nobody to ask for a password")

    try:
        authority = directory / "ca.pem" if directory else None
        context = ssl.create_default_context(cafile=authority if authority and authority.exists() else None)
        if directory and (directory / "cert.pem").exists():
            context.load_cert_chain(directory / "cert.pem", directory / "key.pem", refuse)
    except OSError as error:
        why = (getattr(error, "reason", None) or error.strerror or "failed").replace("_", " ").lower()
        raise InvalidInput(f"read the certificates for docker in {directory}: {why}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Exchange:
    """One daemon, asked one thing after the other. A context manager; ``abort`` wakes who waits for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: http.client.HTTPConnection | None = None
        self._reply: http.client.HTTPResponse | None = None

    def find(self, name: str) -> None:
        """Raises ReferenceNotFound when there is no such image."""
        self._get(f"/images/{quote(name, safe='/:@')}/json", name)

    def saved(self, name: str) -> Callable[[int], bytes]:
        """``read`` of an image as an archive of ``docker save``. Raises ReferenceNotFound."""
        reply = self._get(f"/images/{quote(name, safe='/:@')}/get", name)

        def read(size: int) -> bytes:
            with self._explained(f"get {name} from"):
                return reply.read(size)

        return read

    def _get(self, path: str, name: str) -> http.client.HTTPResponse:
        connection = self._open()
        with self._explained(f"get {name} from"):
            connection.request("GET", path)
            reply = self._reply = connection.getresponse()
            if reply.status == http.client.NOT_FOUND:
                raise ReferenceNotFound(f"image {name} not found in the docker daemon at {self._engine.host}")
            self._check(reply, f"get {name} from")
            return reply

    @contextmanager
    def loading(self) -> Iterator[Load]:
        """An archive on its way into the daemon. Left without ``finish``, nothing is loaded."""
        try:
            connection = self._open()
            with self._explained("load an image into"):
                connection.putrequest("POST", "/images/load?quiet=1")
                connection.putheader("Content-Type", "application/x-tar")
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
            yield Load(self, connection)
        finally:
            self.close()  # without the last chunk the daemon sees that it is not whole

    def _open(self) -> http.client.HTTPConnection:
        self.close()
        self._connection = self._engine.connect()
        return self._connection

    def _check(self, reply: http.client.HTTPResponse, what: str) -> None:
        if reply.status != http.client.OK:
            said = reply.read(_REPLY_LIMIT)
            raise RegistryError(f"{what} docker: {_message(said) or reply.status}", status=reply.status)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
            raise RegistryError(f"{what} docker at {self._engine.host}: {why}") from error

    def abort(self) -> None:
        """Whoever waits for the daemon gets an error now."""
        if self._connection is not None and self._connection.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Load:
    """The archive that is being sent."""

    def __init__(self, exchange: Exchange, connection: http.client.HTTPConnection) -> None:
        self._exchange = exchange
        self._connection = connection

    def write(self, data: Block) -> None:
        """Raises RegistryError, with what the daemon says when it refuses in the middle."""
        if not len(data):
            return
        with self._exchange._explained("load an image into"):
            try:
                self._connection.send(b"%x\r\n" % len(data))
                self._connection.send(data)
                self._connection.send(b"\r\n")
            except (BrokenPipeError, ConnectionResetError):
                with suppress(*_BROKEN):
                    self._read_reply()
                raise

    def finish(self) -> None:
        """The archive is whole. Raises RegistryError when the daemon can't load it."""
        with self._exchange._explained("load an image into"):
            self._connection.send(b"0\r\n\r\n")
            self._read_reply()

    def _read_reply(self) -> None:
        reply = self._connection.getresponse()
        self._exchange._check(reply, "load an image into")
        said = reply.read(_REPLY_LIMIT)
        for line in said.splitlines():
            if b"error" in line and (message := _message(line)):
                raise RegistryError(f"load an image into docker: {message}")


def _message(said: bytes) -> str:
    """The words of a daemon's error; of a stream's line only when it is one."""
    try:
        document: Any = json.loads(said)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    found = document.get("message") or document.get("error") or ""
    return "".join(char if char.isprintable() else " " for char in str(found)[:500]).strip()
