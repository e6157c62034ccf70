"""A registry in this process that misbehaves as it is told. Real sockets, on loopback.

It serves what is put into ``blobs`` and ``manifests``, takes pushes, and first asks its
rules: ``registry.on("GET .*/blobs/", truncated(100))`` breaks the next blob off after 100
bytes. Everything that was asked is in ``requests``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from image.manifest import Index, Manifest

Action = Callable[["Handler"], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@dataclass(slots=True)
class Rule:
    """What to do with requests whose ``METHOD /path`` matches, up to ``times`` of them."""

    pattern: str
    action: Action
    times: int


@dataclass(frozen=True, slots=True)
class TokenServer:
    """Bearer authentication: who may have tokens, and what replies look like."""

    username: str = ""
    password: str = ""
    reply: Mapping[str, Any] = field(default_factory=dict)
    realm: str = ""
    """Where the challenge points, when not at this registry's own ``/token``."""
    oauth: bool = False
    refresh_token: str = ""


@dataclass(eq=False)
class FakeRegistry:
    """State of the registry; tests read and change it."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    basic: tuple[str, str] | None = None
    tokens: TokenServer | None = None
    valid_tokens: dict[str, list[str]] = field(default_factory=dict)
    """Token → its scopes."""
    mounts: bool = True
    upload_location: Callable[[str, str], str] = lambda _base, path: f"{path}?state=opaque%2Fvalue"
    lock: threading.Lock = field(default_factory=threading.Lock)
    uploads: dict[str, bytes] = field(default_factory=dict)

    def on(self, pattern: str, action: Action, *, times: int = 1) -> None:
        self.rules.append(Rule(pattern, action, times))

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def add_manifest(self, repository: str, tag: str, manifest: Manifest | Index) -> None:
        for name in (tag, str(manifest.digest)):
            self.manifests[repository, name] = (manifest.media_type, manifest.raw)

    def seen(self, pattern: str) -> list[Seen]:
        """Requests whose ``METHOD /path`` matches."""
        return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]

    @property
    def url(self) -> str:
        return f"http://{self.host}"


class Handler(BaseHTTPRequestHandler):
    """One connection. Rules call its public methods."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    @property
    def registry(self) -> FakeRegistry:
        return cast("_Server", self.server).registry

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def reply(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        document = {"errors": [{"code": code, "message": message}]}
        self.reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def hang_up(self) -> None:
        """Close the connection with whatever was sent."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """The request, by the rules first."""
        parts = urlsplit(self.path)
        self.where, self.query = parts.path, parse_qs(parts.query)
        self.content = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.registry.lock:
            self.registry.requests.append(Seen(self.command, self.where, self.query, headers, self.content))
            rule = self._rule()
        if rule is not None:
            rule.action(self)
        elif self.where == "/token":
            self._token()
        elif self._authorized():
            self.route()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - the base class's names

    def _rule(self) -> Rule | None:
        for rule in self.registry.rules:
            if rule.times and re.search(rule.pattern, f"{self.command} {self.where}"):
                rule.times -= 1
                return rule
        return None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    # Authentication

    def _authorized(self) -> bool:
        registry, given = self.registry, self.headers.get("Authorization", "")
        if registry.basic is not None:
            wanted = base64.b64encode(":".join(registry.basic).encode()).decode()
            if given != f"Basic {wanted}":
                self.error(401, "UNAUTHORIZED", headers={"WWW-Authenticate": 'Basic realm="fake"'})
                return False
        if registry.tokens is not None and given.removeprefix("Bearer ") not in registry.valid_tokens:
            realm = registry.tokens.realm or f"{registry.url}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:dummy/image:pull"'
            self.error(401, "UNAUTHORIZED", headers={"WWW-Authenticate": challenge})
            return False
        return True

    def _token(self) -> None:
        server = self.registry.tokens
        if server is None:
            return self.reply(404)
        if self.command == "POST":
            form = parse_qs(self.content.decode())
            if not server.oauth:
                return self.reply(404)
            if form.get("refresh_token") != [server.refresh_token]:
                return self.error(401, "UNAUTHORIZED", "bad refresh token")
            scopes = " ".join(form.get("scope", [])).split()
        else:
            wanted = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
            given = self.headers.get("Authorization", "")
            if (server.username or given) and given != f"Basic {wanted}":
                return self.error(401, "UNAUTHORIZED", "incorrect username or password")
            scopes = self.query.get("scope", [])
        with self.registry.lock:
            token = f"token-{len(self.registry.valid_tokens)}"
            self.registry.valid_tokens[token] = scopes
        return self.reply(200, json.dumps({"token": token, **server.reply}).encode())

    # The registry proper

    def route(self) -> None:
        if self.where == "/v2/":
            return self.reply(200, b"{}")
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/(.*)", self.where)
        if match is None:
            return self.reply(404)
        name, kind, rest = match.groups()
        if kind == "manifests":
            return self._manifest(name, rest)
        if kind == "tags":
            return self._tags(name)
        upload = re.fullmatch(r"/v2/(.+?)/blobs/uploads/(.*)", self.where)
        return self._upload(upload[1], upload[2]) if upload else self._blob(rest)

    def _manifest(self, name: str, reference: str) -> None:
        registry = self.registry
        if self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(self.content).hexdigest()}"
            for key in (reference, digest):
                registry.manifests[name, key] = (self.headers["Content-Type"], self.content)
            return self.reply(201, headers={"Docker-Content-Digest": digest})
        found = registry.manifests.get((name, reference))
        if found is None:
            known = any(repository == name for repository, _ in registry.manifests)
            return self.error(404, "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN", "not here")
        digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
        return self.reply(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest})

    def _blob(self, digest: str) -> None:
        data = self.registry.blobs.get(digest)
        if data is None:
            return self.error(404, "BLOB_UNKNOWN")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            first = int(wanted[1])
            headers = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
            return self.reply(206, data[first:], headers)
        return self.reply(200, data)

    def _upload(self, name: str, upload: str) -> None:
        registry = self.registry
        if self.command == "POST":
            if "mount" in self.query and registry.mounts and self.query["mount"][0] in registry.blobs:
                return self.reply(201, headers={"Location": f"/v2/{name}/blobs/{self.query['mount'][0]}"})
            with registry.lock:
                upload = f"upload-{len(registry.uploads)}"
                registry.uploads[upload] = b""
            location = registry.upload_location(registry.url, f"/v2/{name}/blobs/uploads/{upload}")
            return self.reply(202, headers={"Location": location})
        if upload not in registry.uploads:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "DELETE":
            registry.uploads.pop(upload)
            return self.reply(204)
        registry.uploads[upload] += self.content
        if self.command == "PATCH":
            return self.reply(202, headers={"Location": self.path})
        data, digest = registry.uploads.pop(upload), self.query["digest"][0]
        if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
            return self.error(400, "DIGEST_INVALID")
        registry.blobs[digest] = data
        return self.reply(201, headers={"Docker-Content-Digest": digest})

    def _tags(self, name: str) -> None:
        tags = sorted(tag for repository, tag in self.registry.manifests if repository == name and ":" not in tag)
        self.reply(200, json.dumps({"name": name, "tags": tags or None}).encode())


# Misbehaviour


def refuse(status: int, code: str = "", message: str = "", headers: Mapping[str, str] | None = None) -> Action:
    return lambda handler: handler.error(status, code, message, headers)


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Action:
    return lambda handler: handler.reply(status, body, headers)


def truncated(size: int) -> Action:
    """Promise the whole blob, send ``size`` bytes of it, hang up."""

    def act(handler: Handler) -> None:
        data = handler.registry.blobs[handler.where.rpartition("/")[2]]
        handler.reply(200, data[:size], length=len(data))
        handler.hang_up()

    return act


def with_bytes(change: Callable[[bytes], bytes]) -> Action:
    """Send other bytes than the blob asked for."""
    return lambda handler: handler.reply(200, change(handler.registry.blobs[handler.where.rpartition("/")[2]]))


def endless(media_type: str) -> Action:
    """A body that never ends, until the other side has had enough."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", media_type)
        handler.send_header("Connection", "close")
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(b" " * 65536)
        handler.close_connection = True

    return act


def trickle(interval_s: float) -> Action:
    """One byte now and then: never silent for long, never done."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(b" ")
                time.sleep(interval_s)
        handler.close_connection = True

    return act


def silent_until(event: threading.Event) -> Action:
    """Nothing at all until the test says so."""

    def act(handler: Handler) -> None:
        event.wait(30)
        handler.hang_up()

    return act


def redirect(url: str, status: int = 307) -> Action:
    return lambda handler: handler.reply(status, headers={"Location": url})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    registry: FakeRegistry

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    """A running registry, without authentication until the test sets it."""
    server = _Server(("127.0.0.1", 0), Handler)
    server.registry = FakeRegistry(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
