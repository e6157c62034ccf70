"""Proxies, certificates and the retry clock: what is decided without a peer, and a proxy that is real."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest

from image.errors import InvalidInput, RegistryError
from image.reference import Reference
from tests.support.fake_registry import FakeRegistry, refuse
from tests.support.process import command, need
from tests.support.tiny_image import tiny_image
from transfer.credentials import CredentialFiles, Credentials
from transfer.registries import Registries, RegistryOptions
from transfer.registry.connection import is_local
from transfer.registry.proxies import proxy_for
from transfer.registry.retry import Retry
from transfer.registry.tls import tls_context
from transfer.registry.wire import Origin, origin

HTTPS = {"HTTPS_PROXY": "http://user:p%40ss@proxy:3128"}


@pytest.mark.parametrize(
    ("url", "environ", "proxied"),
    [
        pytest.param("https://r.example", HTTPS, True, id="https"),
        pytest.param("https://r.example", {"https_proxy": "proxy:3128"}, True, id="lower-case-and-bare"),
        pytest.param("http://r.example", HTTPS, False, id="other-scheme"),
        pytest.param("http://r.example", {"HTTP_PROXY": "http://proxy"}, True, id="http"),
        pytest.param("http://r.example", {"HTTP_PROXY": "http://proxy", "REQUEST_METHOD": "GET"}, False, id="cgi"),
        pytest.param("https://127.0.0.1:5000", HTTPS, False, id="loopback"),
        pytest.param("https://localhost", HTTPS, False, id="localhost"),
        pytest.param("https://r.example", HTTPS | {"NO_PROXY": "r.example"}, False, id="no-proxy-host"),
        pytest.param("https://a.r.example", HTTPS | {"NO_PROXY": ".r.example"}, False, id="no-proxy-domain"),
        pytest.param("https://xr.example", HTTPS | {"NO_PROXY": "r.example"}, True, id="no-proxy-other-domain"),
        pytest.param("https://r.example:444", HTTPS | {"NO_PROXY": "r.example:443"}, True, id="no-proxy-other-port"),
        pytest.param("https://10.1.2.3", HTTPS | {"no_proxy": "a, 10.0.0.0/8"}, False, id="no-proxy-network"),
        pytest.param("https://r.example", HTTPS | {"NO_PROXY": "*"}, False, id="no-proxy-all"),
        pytest.param("https://r.example", HTTPS | {"NO_PROXY": ","}, True, id="no-proxy-empty"),
    ],
)
def test_proxies(url: str, environ: dict[str, str], proxied: bool) -> None:
    assert (proxy_for(origin(url), environ) is not None) is proxied


def test_proxy_s_password_is_sent_to_the_proxy() -> None:
    proxy = proxy_for(Origin("https", "r.example", 443), HTTPS)
    assert proxy is not None
    assert (proxy.origin, proxy.headers) == (
        Origin("http", "proxy", 3128),
        {"Proxy-Authorization": "Basic dXNlcjpwQHNz"},
    )


def test_other_kinds_of_proxy_are_named() -> None:
    with pytest.raises(InvalidInput, match="proxy socks5://proxy: only http://"):
        proxy_for(Origin("https", "r.example", 443), {"HTTPS_PROXY": "socks5://user:secret@proxy"})


def test_plain_http_goes_through_the_proxy(fake: FakeRegistry, tmp_path: Path) -> None:
    image = tiny_image()
    fake.add_manifest("app", "1", image.manifest)
    environ = {"http_proxy": fake.url, "https_proxy": "http://127.0.0.1:1"}
    credentials = Credentials(CredentialFiles((), tmp_path / "none"), {})
    with Registries(environ, credentials, RegistryOptions(insecure=True)) as registries:
        _, manifest = registries.repository(Reference.parse("r.invalid/app:1")).fetch_manifest("1")
    assert manifest == image.manifest
    assert {request.headers["host"] for request in fake.requests} == {"r.invalid"}


def test_warnings_reach_the_caller_once(fake: FakeRegistry, tmp_path: Path) -> None:
    headers = {"Warning": '299 - "old \x1b[31mAPI"', "Content-Type": "application/json"}
    fake.on("HEAD .*/manifests/", refuse(404, headers=headers), times=2)
    told: list[str] = []
    credentials = Credentials(CredentialFiles((), tmp_path / "none"), {})
    with Registries({}, credentials, warn=told.append) as registries:
        repository = registries.repository(Reference.parse(f"{fake.host}/app:1"))
        assert [repository.head_manifest("1"), repository.head_manifest("1")] == [None, None]
    assert told == [f"{fake.host}: old [31mAPI"]


def test_damaged_certificate_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "r.example").mkdir()
    (tmp_path / "r.example" / "ca.crt").write_text("not a certificate")
    with pytest.raises(InvalidInput, match=r"read certificate .*ca\.crt"):
        tls_context([tmp_path / "r.example"])


@pytest.mark.parametrize(
    ("peer", "local"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("169.254.169.254", True), ("fe80::1%eth0", True), ("0.0.0.0", True), ("10.0.0.1", False), ("93.184.216.34", False)],
)  # fmt: skip
def test_peers_that_a_redirect_must_not_reach(peer: str, local: bool) -> None:
    assert is_local(peer) is local


class TestRetry:
    def retry(self, waited: list[float]) -> Retry:
        return Retry(attempts=4, first_wait_s=1, longest_wait_s=3, sleep=waited.append, jitter=lambda: 1.0)

    @pytest.mark.parametrize(
        ("errors", "waits"),
        [
            pytest.param([], [], id="success"),
            pytest.param([RegistryError("x", temporary=True)] * 3, [1.0, 2.0, 3.0], id="backs-off-to-a-limit"),
            pytest.param([RegistryError("x", temporary=True, retry_after_s=2.0)], [2.1], id="as-asked"),
            pytest.param([RegistryError("x", temporary=True, retry_after_s=99.0)], [3.1], id="as-asked-within-limits"),
        ],
    )
    def test_waits(self, errors: list[RegistryError], waits: list[float]) -> None:
        waited: list[float] = []
        remaining = list(errors)

        def action() -> int:
            if remaining:
                raise remaining.pop()
            return 42

        assert self.retry(waited).call(action) == 42
        assert waited == pytest.approx(waits)

    @pytest.mark.parametrize(("temporary", "tries"), [(False, 1), (True, 4)])
    def test_gives_up(self, temporary: bool, tries: int) -> None:
        count = 0

        def action() -> None:
            nonlocal count
            count += 1
            raise RegistryError("x", temporary=temporary)

        with pytest.raises(RegistryError):
            self.retry([]).call(action)
        assert count == tries


class TestCertificates:
    @pytest.fixture
    def pem(self, tmp_path: Path) -> Path:
        """A certificate with its key, made by openssl."""
        command([
            need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", tmp_path / "own.key", "-out", tmp_path / "own.pem", "-days", "2", "-subj", "/CN=own",
        ])  # fmt: skip
        return tmp_path / "own.pem"

    def test_the_first_place_that_exists_counts(self, tmp_path: Path, pem: Path) -> None:
        (tmp_path / "system" / "r.example").mkdir(parents=True)
        (tmp_path / "system" / "r.example" / "ca.crt").write_bytes(pem.read_bytes())
        places = [tmp_path / "user", tmp_path / "system"]
        authorities = len(ssl.create_default_context().get_ca_certs())
        assert len(tls_context([place / "r.example" for place in places]).get_ca_certs()) == authorities + 1
        (tmp_path / "user" / "r.example").mkdir(parents=True)
        assert len(tls_context([place / "r.example" for place in places]).get_ca_certs()) == authorities
        assert len(tls_context([place / "r.example:5000" for place in places]).get_ca_certs()) == authorities

    def test_one_directory_for_all_hosts(self, tmp_path: Path, pem: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "ca.crt").write_bytes(pem.read_bytes())
        before = len(ssl.create_default_context().get_ca_certs())
        assert len(tls_context([tmp_path / "mine"], must_exist=True).get_ca_certs()) == before + 1
        with pytest.raises(InvalidInput, match=r"read certificates in .*absent: no such directory"):
            tls_context([tmp_path / "absent"], must_exist=True)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            pytest.param({"me.cert": "pem"}, r"me\.cert: me\.key is missing \(an authority", id="no-key"),
            pytest.param({"me.key": "key"}, r"certificate key .*me\.key: me\.cert is missing", id="no-certificate"),
            pytest.param({"me.cert": "pem", "me.key": "rubbish"}, r"read certificate .*me\.cert: ", id="broken-key"),
            pytest.param({"me.cert": "pem", "me.key": "locked"}, r"me\.cert: its key is encrypted", id="encrypted-key"),
            pytest.param({"ca.crt": "rubbish"}, r"read certificate .*ca\.crt: no certificate or crl found", id="broken-authority"),
        ],
    )  # fmt: skip
    def test_what_can_t_be_used(self, tmp_path: Path, pem: Path, files: dict[str, str], message: str) -> None:
        key = pem.with_suffix(".key")
        locked = command([need("openssl"), "pkcs8", "-topk8", "-in", key, "-passout", "pass:secret"])
        content = {"pem": pem.read_text(), "key": key.read_text(), "rubbish": "rubbish", "locked": locked}
        (tmp_path / "certs").mkdir()
        for name, what in files.items():
            (tmp_path / "certs" / name).write_text(content[what])
        with pytest.raises(InvalidInput, match=message) as caught:
            tls_context([tmp_path / "certs"])
        assert "\n" not in str(caught.value)


@pytest.mark.peer
def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    """A server that demands one, signed by its own authority."""
    authority = tmp_path / "r"
    authority.mkdir()
    command([
        need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", authority / "me.key", "-out", authority / "me.cert", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1",
    ])  # fmt: skip
    shutil.copy(authority / "me.cert", authority / "ca.crt")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority / "me.cert", authority / "me.key")
    server.load_verify_locations(authority / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = tls_context([authority])

        def connect() -> None:
            with (
                socket.create_connection(listening.getsockname()) as raw,
                client.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
            ):
                tls.recv(1)

        thread = threading.Thread(target=connect)
        thread.start()
        raw, _ = listening.accept()
        with raw, server.wrap_socket(raw, server_side=True) as tls:
            shown = tls.getpeercert()
            tls.sendall(b"x")
        thread.join()
    assert shown
    assert shown["subject"] == ((("commonName", "127.0.0.1"),),)
