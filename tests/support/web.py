"""A web server on loopback that does as it is told, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What a path answers. ``promised`` is a Content-Length that lies; ``token`` must be in Authorization.

    With ``heads`` false, HEAD is not allowed. ``wait`` is called before the body is sent.
    """

    body: bytes = b""
    etag: str = ""
    modified: str = ""
    status: int = 200
    location: str = ""
    promised: int | None = None
    token: str = ""
    heads: bool = True
    wait: Callable[[], object] = lambda: None


@dataclass
class Web:
    """The server's pages by path, and its log of ``METHOD /path status``."""

    port: int = 0
    pages: dict[str, Page] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    seen: list[Mapping[str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def asked(self) -> list[str]:
        """The log since the last look."""
        found, self.log[:] = list(self.log), []
        return found


@contextmanager
def web(pages: dict[str, Page] | None = None) -> Iterator[Web]:
    """A running server, until the end of the block."""
    told = Web(pages=pages or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = told.pages.get(self.path, Page(status=404))
            told.seen.append(dict(self.headers))
            status = self._status(page)
            told.log.append(f"{self.command} {self.path} {status}")
            self.send_response(status)
            headers = {"ETag": page.etag, "Last-Modified": page.modified, "Location": page.location}
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            body = page.body if status == page.status == 200 else b""
            if status != 304:
                self.send_header("Content-Length", str(len(body) if page.promised is None else page.promised))
            self.end_headers()
            if self.command == "GET":
                page.wait()
                self.wfile.write(body)
            if page.promised is not None:
                self.close_connection = True

        do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

        def _status(self, page: Page) -> int:
            if page.token and page.token not in self.headers.get("Authorization", ""):
                return 401
            if self.command == "HEAD" and not page.heads:
                return 405
            if page.etag and self.headers.get("If-None-Match") == page.etag:
                return 304
            if page.modified and not page.etag and self.headers.get("If-Modified-Since") == page.modified:
                return 304
            return page.status

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
