"""Which proxy the environment names for a host."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from image.errors import InvalidInput
from image.value import dataclass
from transfer.registry.wire import Origin, is_loopback, redact


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; ``authorization`` is the value of its header, or ""."""

    origin: Origin
    authorization: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


def proxy_for(where: Origin, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that the environment names for a host. This machine is never reached through one."""
    url = environ.get(f"{where.scheme}_proxy") or (environ.get("HTTPS_PROXY") if where.scheme == "https" else None)
    if not url and where.scheme == "http" and "REQUEST_METHOD" not in environ:  # CGI sets HTTP_PROXY from a header
        url = environ.get("HTTP_PROXY")
    if not url or is_loopback(where.host):
        return None
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if any(_excepted(where, entry.strip().lower()) for entry in exceptions.split(",")):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http":
        raise InvalidInput(f"proxy {redact(url)}: only http:// proxies are supported")
    secret = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    header = "Basic " + base64.b64encode(secret.encode()).decode() if parts.username else ""
    return Proxy(Origin("http", parts.hostname or "", parts.port or 80), header)


def _excepted(where: Origin, entry: str) -> bool:
    """Whether one word of NO_PROXY means this host."""
    if entry == "*":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(where.host) in ipaddress.ip_network(entry, strict=False)
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit():
        if int(port) != where.port:
            return False
        entry = host
    name = entry.lstrip("*").lstrip(".")
    return bool(name) and (where.host == name or where.host.endswith(f".{name}"))
