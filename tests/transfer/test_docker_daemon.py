"""``docker-daemon:`` against a server that answers as a daemon does when something is wrong.

What goes right is shown with a real daemon in tests/peers/test_interchange.py.
"""

from __future__ import annotations

import io
import json
import shutil
import socketserver
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fixtures.registries import make_certificate
from image.errors import InvalidInput, ReferenceNotFound, RegistryError, TierceError
from image.value import replace
from store.store import Store
from tests.support.tiny_image import add_to_store, tiny_image
from tests.support.transfers import OPTIONS
from transfer.copy import copy
from transfer.docker_engine import Engine
from transfer.transports.docker_daemon import DockerDaemonSink, DockerDaemonSource
from transfer.transports.local import StoreSource

Reply = Callable[[Any], None]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def handler_for(reply: Reply) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "client"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            reply(self)

    Handler.do_GET = Handler.do_POST = Handler._answer  # type: ignore[attr-defined]
    return Handler


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@contextmanager
def answering(socket: Path, reply: Reply) -> Iterator[Engine]:
    with served(_Server(str(socket), handler_for(reply))):
        yield Engine(f"unix://{socket}")


@contextmanager
def answering_by_tls(directory: Path, reply: Reply) -> Iterator[Engine]:
    """A daemon that talks to who shows a certificate of its authority, which is its own certificate."""
    made = make_certificate(directory, ())
    certificates = directory / "client"
    certificates.mkdir()
    for source, name in ((made.certificate, "ca"), (made.certificate, "cert"), (made.key, "key")):
        shutil.copy(source, certificates / f"{name}.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.certificate))
    context.load_cert_chain(made.certificate, made.key)
    context.verify_mode = ssl.CERT_REQUIRED

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            with context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that are refused."""

    server = Server(("127.0.0.1", 0), handler_for(reply))
    with served(server):
        yield Engine(f"tcp://127.0.0.1:{server.server_port}", certificates)


def say(handler: Any, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def received(handler: Any) -> bytes:
    """A chunked body; raises EOFError for one that breaks off."""
    body = b""
    while size := int(handler.rfile.readline() or b"x", 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    return body


@pytest.fixture
def image(store: Store) -> StoreSource:
    add_to_store(store, tiny_image({"f": b"x" * 100}), "app:1")
    return StoreSource(store, "app:1")


def load(image: StoreSource, engine: Engine) -> None:
    with image as source, DockerDaemonSink(["app:1"], engine) as sink:
        copy(source, sink, OPTIONS)


def test_an_error_in_the_stream_of_a_load_is_the_error(image: StoreSource, tmp_path: Path) -> None:
    def reply(handler: Any) -> None:
        received(handler)
        say(handler, 200, {"errorDetail": {"message": "no space"}, "error": "no\x1b[31m space"})

    with (
        answering(tmp_path / "s", reply) as engine,
        pytest.raises(RegistryError, match=r"load an image into docker: no \[31m space$"),
    ):
        load(image, engine)


def test_a_copy_that_fails_sends_no_end(image: StoreSource, tmp_path: Path) -> None:
    """The daemon must not take an archive for whole that is not."""
    broken = threading.Event()

    def reply(handler: Any) -> None:
        try:
            received(handler)
        except ValueError:
            broken.set()

    with answering(tmp_path / "s", reply) as engine:
        with pytest.raises(ZeroDivisionError), DockerDaemonSink(["app:1"], engine) as sink:
            sink._writer.tar.add("some", b"content")
            raise ZeroDivisionError
        assert broken.wait(10)


def test_absent_images_and_daemons(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "s", lambda handler: say(handler, 404, {"message": "No such image"})) as engine,
        pytest.raises(ReferenceNotFound, match="app:1 not found in the docker daemon at unix://"),
    ):
        DockerDaemonSource("app:1", engine).__enter__()
    with pytest.raises(RegistryError, match=r"connect to the docker daemon at unix:///nowhere: .*is it running"):
        DockerDaemonSource("app:1", Engine("unix:///nowhere")).__enter__()


def test_an_archive_that_breaks_off(tmp_path: Path) -> None:
    def reply(handler: Any) -> None:
        if handler.path.endswith("/json"):
            return say(handler, 200, {"Id": "sha256:x"})
        handler.send_response(200)
        handler.send_header("Content-Length", "10000")
        handler.end_headers()
        handler.wfile.write(bytes(512))
        handler.close_connection = True
        return None

    with answering(tmp_path / "s", reply) as engine, pytest.raises(TierceError):
        DockerDaemonSource("app:1", engine).__enter__()


def test_tls_with_certificates_of_both_sides(image: StoreSource, tmp_path: Path) -> None:
    bodies = []

    def reply(handler: Any) -> None:
        bodies.append(received(handler))
        say(handler, 200, {"stream": "Loaded image"})

    with answering_by_tls(tmp_path, reply) as engine:
        load(image, engine)
        (tmp_path / "bare").mkdir()
        for wrong, problem in ((replace(engine, certificates=tmp_path / "bare"), "certificate verify failed"),
                               (replace(engine, certificates=tmp_path / "bare", verify=False), "docker at tcp://")):  # fmt: skip
            with pytest.raises(RegistryError, match=problem):
                load(image, wrong)
    (body,) = bodies
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert "manifest.json" in tar.getnames()


@pytest.mark.parametrize("host", ["ssh://me@there", "npipe:////./pipe/x", "tcp://", "tcp://host:x", "unix://", "plain"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(InvalidInput, match="docker daemon"):
        Engine(host).connect()


def test_which_daemon() -> None:
    assert Engine.of({}) == Engine("unix:///var/run/docker.sock")
    assert Engine.of({"DOCKER_HOST": "tcp://a:1", "DOCKER_CERT_PATH": "/c"}) == Engine("tcp://a:1", Path("/c"))
    assert Engine.of({"DOCKER_HOST": "tcp://a:1"}, "unix:///b").host == "unix:///b"
    assert Engine.of({"DOCKER_TLS_VERIFY": "1", "HOME": "/h"}).certificates == Path("/h/.docker")


@pytest.mark.parametrize("name", ["app@sha256:" + "0" * 64, "Upper/Case"])
def test_names_that_a_daemon_does_not_have(name: str) -> None:
    with pytest.raises(InvalidInput):
        DockerDaemonSource(name, Engine())
