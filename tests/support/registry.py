"""A real registry (Docker Distribution) on a loopback port, open, with a password, or with TLS."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import command, daemon, free_port, need


@dataclass(frozen=True, slots=True)
class Login:
    """A user that the registry knows."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """A token server that the registry sends its users to, and the certificate whose tokens it believes."""

    realm: str
    service: str
    issuer: str
    certificate: Path


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry. ``host`` is ``127.0.0.1:port``, ready to stand before an image's name."""

    host: str
    directory: Path
    login: Login | None = None
    certificate: Path | None = None
    tokens: TokenAuth | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}"

    def name(self, image: str) -> str:
        """``image`` as it is called in this registry."""
        return f"{self.host}/{image}"


@contextmanager
def registry(
    directory: Path, *, login: Login | None = None, tls: bool = False, tokens: TokenAuth | None = None
) -> Iterator[Registry]:
    """A registry that keeps its blobs in ``directory`` and stops at the end of the block.

    ``tls`` gives it a self-signed certificate for 127.0.0.1 and localhost. Skips the test
    when the machine has no docker-registry.
    """
    program = need("docker-registry")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    certificate = _make_certificate(directory) if tls else None
    running = Registry(f"127.0.0.1:{port}", directory, login, certificate, tokens)
    settings = directory / "config.yml"
    settings.write_text(json.dumps(_settings(running)))  # JSON is YAML
    with daemon([program, "serve", settings], log=directory / "log", ready=lambda: _answers(running)):
        yield running


def _settings(running: Registry) -> dict[str, object]:
    directory = running.directory
    http: dict[str, object] = {"addr": running.host, "secret": "of this test"}
    if running.certificate:
        http["tls"] = {"certificate": str(running.certificate), "key": str(directory / "key.pem")}
    settings: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if running.login:
        settings["auth"] = {
            "htpasswd": {"realm": "tierce tests", "path": str(_make_htpasswd(directory, running.login))}
        }
    if running.tokens:
        settings["auth"] = {
            "token": {
                "realm": running.tokens.realm, "service": running.tokens.service, "issuer": running.tokens.issuer,
                "rootcertbundle": str(running.tokens.certificate),
            }
        }  # fmt: skip
    return settings


def _make_htpasswd(directory: Path, login: Login) -> Path:
    program = need("htpasswd", package="apache2-utils")
    path = directory / "htpasswd"
    path.write_text(command([program, "-B", "-b", "-n", login.username, login.password]))
    return path


def _make_certificate(directory: Path) -> Path:
    path = directory / "cert.pem"
    command([need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
             "-keyout", directory / "key.pem", "-out", path])  # fmt: skip
    return path


def _answers(running: Registry) -> bool:
    trust = ssl.create_default_context(cafile=str(running.certificate)) if running.certificate else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=trust)] if trust else [])
    )
    try:
        opener.open(f"{running.url}/v2/", timeout=5).close()
    except urllib.error.HTTPError as reply:
        reply.close()
        return reply.code == 401
    except OSError:
        return False
    return True
