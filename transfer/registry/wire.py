"""Requests to a registry and its replies, as values. Nothing here opens a socket.

What a registry says is hostile: every parser is bounded, returns None or a clamped value
for nonsense, and text that will be shown loses its control characters.

Spec: distribution-spec v1.1; RFC 9110 (challenges, ranges), RFC 8288 (Link).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

from image import media_types
from image.digest import Digest
from image.errors import InvalidInput, RegistryError
from image.reference import DEFAULT_DOMAIN
from image.value import dataclass, field, replace

MANIFEST_ACCEPT: Final = ", ".join(
    (media_types.OCI_MANIFEST, media_types.OCI_INDEX, media_types.DOCKER_MANIFEST, media_types.DOCKER_LIST)
)
MAX_ERROR_SIZE: Final = 64 << 10
"""Bytes of an error reply that are looked at."""
_SHOWN: Final = 300
"""Characters of a registry's own words that a message repeats."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, before authorization. ``body`` is small; uploads are streamed beside it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes | memoryview = b""

    def with_header(self, name: str, value: str) -> Request:
        return replace(self, headers={**self.headers, name: value})


@dataclass(frozen=True, slots=True)
class Headers:
    """The header fields of a reply, names in any case."""

    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The first value of ``name``."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.fields if key.lower() == wanted]

    def length(self) -> int | None:
        """Content-Length, when it is a number."""
        return self.number("Content-Length")

    def number(self, name: str) -> int | None:
        """A field that is a whole number, when it is one."""
        value = (self.get(name) or "").strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


# Where things are


@dataclass(frozen=True, slots=True)
class Origin:
    """The part of a URL that credentials belong to."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@lru_cache(maxsize=256)
def origin(url: str) -> Origin:
    """Of a URL, which is asked for many times on the way of one request. Raises InvalidInput when this is no http or https URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"invalid URL {redact(url)!r}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.hostname.isascii():
        raise InvalidInput(f"invalid URL {redact(url)!r}: want http:// or https:// and a host")
    return Origin(parts.scheme, parts.hostname, port or _default_port(parts.scheme))


def request_target(url: str) -> str:
    """Path and query as they stand in a request line."""
    parts = urlsplit(url)
    return quote(urlunsplit(("", "", parts.path or "/", parts.query, "")), safe="%/:=&?~+!$,;'@()*[]")


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def registry_host(domain: str) -> str:
    """The host that serves a reference's domain."""
    return "registry-1.docker.io" if domain == DEFAULT_DOMAIN else domain


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_private(host: str) -> bool:
    """Whether a host is an address literal (or localhost) of a network that is not public."""
    address = _address(host)
    return is_loopback(host) or (address is not None and not address.is_global)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def redact(url: str) -> str:
    """A URL that may be shown: no user, no password, no query (signed links carry secrets there)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return printable(re.sub(r"//[^/]*@", "//", url.partition("?")[0]))
    netloc = parts.netloc.rpartition("@")[2]
    return printable(urlunsplit((parts.scheme, netloc, parts.path, "", "")))


def printable(text: str, limit: int = _SHOWN) -> str:
    """One line without control characters, cut to ``limit``: words from outside, safe for a terminal."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: limit * 4])
    line = " ".join(clean.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


# The calls of the distribution-spec


def manifest_url(base: str, repository: str, name: str) -> str:
    """``name`` is a tag or a digest."""
    return f"{base}/v2/{repository}/manifests/{quote(name, safe=':')}"


def blob_url(base: str, repository: str, digest: Digest) -> str:
    return f"{base}/v2/{repository}/blobs/{digest}"


def uploads_url(base: str, repository: str, *, mount: Digest | None = None, source: str = "") -> str:
    """Where an upload begins; with ``mount``, where a blob of repository ``source`` is linked."""
    query = "" if mount is None else "?" + urlencode({"mount": str(mount), "from": source})
    return f"{base}/v2/{repository}/blobs/uploads/{query}"


def finish_url(location: str, digest: Digest) -> str:
    """The upload's location with the digest added to whatever query it has."""
    parts = urlsplit(location)
    query = "&".join(filter(None, (parts.query, urlencode({"digest": str(digest)}))))
    return urlunsplit(parts._replace(query=query))


def tags_url(base: str, repository: str, *, page: int = 1000) -> str:
    return f"{base}/v2/{repository}/tags/list?n={page}"


def referrers_url(base: str, repository: str, subject: Digest, artifact_type: str = "") -> str:
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    return f"{base}/v2/{repository}/referrers/{subject}{query}"


CATALOG_SCOPE: Final = "registry:catalog:*"


def catalog_url(base: str, *, page: int = 1000) -> str:
    return f"{base}/v2/_catalog?n={page}"


def with_query(url: str, **more: str) -> str:
    """The URL with more parameters."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(more)}"


def resolve_location(url: str, headers: Headers) -> str:
    """The absolute form of ``Location``, where one may go from ``url``.

    Raises RegistryError when there is none to follow, or it leads where ``check_way`` refuses.
    """
    location = headers.get("Location")
    if not location:
        raise RegistryError(f"{redact(url)}: the reply has no Location", url=redact(url))
    try:
        target = urljoin(url, location)
        origin(target)
    except (InvalidInput, ValueError) as error:
        raise RegistryError(f"{redact(url)}: the reply has an invalid Location", url=redact(url)) from error
    check_way(url, target)
    return target


def check_way(url: str, target: str) -> None:
    """Refuse https→http, and a way from a public host to this machine or its private networks.

    A registry must not aim us at them. Raises RegistryError.
    """
    old, new = origin(url), origin(target)
    if old.scheme == "https" and new.scheme == "http":
        advice = ": the proxy before it must tell it of https (X-Forwarded-Proto)" if old.host == new.host else ""
        raise RegistryError(f"{redact(url)}: refused a redirect from https to http{advice}", url=redact(target))
    if is_private(new.host) and new.host != old.host and not is_private(old.host):
        raise RegistryError(f"{redact(url)}: refused a redirect to the private address {new.host}", url=redact(target))


def redirected(request: Request, headers: Headers) -> Request:
    """The request to make instead, after a redirect. Authorization goes to the same origin only.

    Raises RegistryError where ``check_way`` refuses.
    """
    target = resolve_location(request.url, headers)
    old, new = origin(request.url), origin(target)
    kept = request.headers
    if old != new:
        kept = {name: value for name, value in kept.items() if name.lower() not in {"authorization", "cookie"}}
    return replace(request, url=target, headers=kept)


def next_page(url: str, headers: Headers) -> str | None:
    """The ``rel=next`` link of a listing, or None. A link to another host is refused."""
    for value in headers.all("Link"):
        for target, parameters in re.findall(r"<([^>]*)>((?:\s*;[^,<]*)*)", value[:8192]):
            if re.search(r';\s*rel="?next"?\s*(?:;|$)', parameters):
                try:
                    link = str(urljoin(url, target))
                    foreign = origin(link) != origin(url)
                except (InvalidInput, ValueError) as error:
                    raise RegistryError(f"{redact(url)}: the link to the next page is invalid") from error
                if foreign:
                    raise RegistryError(f"{redact(url)}: refused a next page on another host", url=redact(link))
                return link
    return None


# Ranges


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes ``first`` to ``last`` inclusive; ``total`` is None where the registry wrote ``*``."""

    first: int
    last: int
    total: int | None


def content_range(headers: Headers) -> ContentRange | None:
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", (headers.get("Content-Range") or "").strip())
    if match is None:
        return None
    first, last, total = match.groups()
    return ContentRange(int(first), int(last), None if total == "*" else int(total))


def continues(headers: Headers, offset: int, size: int) -> bool:
    """Whether a 206 is exactly the rest of a blob of ``size`` bytes from ``offset`` on."""
    found = content_range(headers)
    return found is not None and (found.first, found.last + 1) == (offset, size) and found.total in {None, size}


# Challenges


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a 401 offers. ``scheme`` is lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(hash=False)

    def get(self, name: str) -> str:
        return self.parameters.get(name, "")


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's word for a word
_SCHEME = re.compile(rf"\s*,?\s*({_TOKEN})(?=\s|,|$)(?!\s*=)\s*")
_PARAMETER = re.compile(rf'\s*,?\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|{_TOKEN})')


def challenges(headers: Headers) -> list[Challenge]:
    """Every challenge of every WWW-Authenticate field, in order. Stops where it is malformed."""
    found = []
    for value in headers.all("WWW-Authenticate"):
        text = value[:8192]
        position = 0
        while scheme := _SCHEME.match(text, position):
            position = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, position):
                position = parameter.end()
                parameters.setdefault(parameter[1].lower(), _unquote(parameter[2]))
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def temporary(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in {408, 429, 499, 500, 502, 503, 504, 522}


# Scopes


def covers(known: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether a token for the scopes ``known`` was asked for all that ``wanted`` says."""
    return _actions(wanted) <= _actions(known)


def _actions(scopes: Iterable[str]) -> set[tuple[str, str]]:
    """``repository:a:pull,push`` as one pair for each action."""
    split = (scope.rpartition(":") for scope in scopes)
    return {(resource, action) for resource, _, actions in split for action in actions.split(",")}


def repository_scope(repository: str, actions: Iterable[str]) -> str:
    """``repository:name:pull,push``: what a token must allow."""
    return f"repository:{repository}:{','.join(actions)}"
