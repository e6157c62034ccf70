"""Proxies, certificates and the retry clock: what is decided without a peer, and a proxy that is real."""

from __future__ import annotations

from pathlib import Path

import pytest

from image.errors import InvalidInput, RegistryError
from image.reference import Reference
from tests.support.fake_registry import FakeRegistry, refuse
from tests.support.tiny_image import tiny_image
from transfer.credentials import CredentialFiles, Credentials
from transfer.registries import Registries, RegistryOptions
from transfer.registry.proxies import proxy_for
from transfer.registry.retry import Retry
from transfer.registry.tls import tls_context
from transfer.registry.transport import _is_local
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
    assert _is_local(peer) is local


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
