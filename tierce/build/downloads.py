"""Files behind URLs, for ADD and for contexts. Implements ``builder.ports.Downloads``.

The bytes are a blob of the store. A row of the build cache keeps it and remembers what the
server said of it, so that the next build asks (HEAD, If-None-Match) before it downloads. It
is pruned, counted and collected as the rest of the cache is.

Spec: dockerfile.md 1.5, row "ADD URL"; RFC 9110, "Conditional Requests".
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from builder.ports import Downloaded
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import DigestMismatch, InvalidInput, RegistryError
from image.value import dataclass
from store.metadata import CacheRecord
from store.store import Session

if TYPE_CHECKING:
    from transfer.registry.transport import Reply, Timeouts, Transport
    from transfer.registry.wire import Headers, Request

_MEDIA_TYPE: Final = "application/octet-stream"
_BLOCK: Final = 1 << 20
_ATTEMPTS: Final = 3
_SEPARATOR: Final = " | "


@dataclass(frozen=True, slots=True)
class Version:
    """What a server says to tell one state of a file from another; "" for what it does not say."""

    etag: str = ""
    modified: str = ""

    @classmethod
    def of(cls, headers: Headers) -> Version:
        etag, modified = headers.get("ETag") or "", headers.get("Last-Modified") or ""
        return cls(etag if _is_plain(etag, " ") else "", modified if _is_plain(modified, "|") else "")

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask for a reply only if the file is another by now."""
        asked = {"If-None-Match": self.etag, "If-Modified-Since": "" if self.etag else self.modified}
        return {name: value for name, value in asked.items() if value}

    @property
    def modified_s(self) -> int:
        """Last-Modified in seconds since 1970; 0 where there is none, or it makes no sense."""
        with suppress(ValueError, TypeError, OverflowError):
            return max(0, int(parsedate_to_datetime(self.modified).timestamp()))
        return 0

    def is_still(self, status: int, headers: Headers, size: int) -> bool:
        """Whether a reply to a HEAD says that the file, of ``size`` bytes, is as it was."""
        if status == HTTPStatus.NOT_MODIFIED:
            return True
        now = Version.of(headers)
        if status != HTTPStatus.OK or headers.length() not in {None, size}:
            return False
        if self.etag or now.etag:
            return self.etag.removeprefix("W/") == now.etag.removeprefix("W/")
        return bool(self.modified) and self.modified == now.modified


def _is_plain(value: str, without: str) -> bool:
    return value.isprintable() and without not in value and len(value) <= 200


class StoredDownloads:
    """Downloads of one build; what they give is held by its session. Close it after the build.

    ``secrets`` may have ``HTTP_AUTH_HEADER_host``, a whole Authorization header, or
    ``HTTP_AUTH_TOKEN_host``, a bearer token; they go to that host alone.
    """

    def __init__(
        self,
        session: Session,
        environ: Mapping[str, str],
        secrets: Mapping[str, Callable[[], bytes]],
        *,
        tls_verify: bool = True,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._session = session
        self._metadata = session.store.metadata
        self._environ = environ
        self._secrets = secrets
        self._tls_verify = tls_verify
        self._timeouts = timeouts
        self._transport: Transport | None = None
        self._lock = threading.Lock()

    def known(self, url: str, checksum: Digest | None) -> Downloaded | None:
        """See ``builder.ports.Downloads``. A server that can't be asked is asked again by ``fetch``."""
        kept = self._kept(url)
        if kept is None:
            return None
        version, blob = kept
        if checksum is not None:
            return Downloaded(blob, version.modified_s) if blob.digest == checksum else None
        if not version.conditions:
            return None
        try:
            with self._connect().send(self._request("HEAD", url, version.conditions)) as reply:
                if not version.is_still(reply.status, reply.headers, blob.size):
                    return None
        except RegistryError:
            return None
        self._metadata.touch_cached([_key(url)])
        return Downloaded(blob, version.modified_s)

    def fetch(self, url: str, checksum: Digest | None) -> Downloaded:
        from transfer.registry.retry import Retry

        transport = self._connect()
        kept = self._kept(url)
        retry = Retry(attempts=_ATTEMPTS, sleep=transport.sleep)
        with _named(url):
            version, blob = retry.call(lambda: self._fetch_once(transport, url, kept, checksum))
        label = _SEPARATOR.join((f"download {_shown(url)}", version.modified, version.etag))
        self._metadata.add_cached(CacheRecord(_key(url), None, None, blob, blob.size, label))
        return Downloaded(blob, version.modified_s)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            self._transport.close()

    def _fetch_once(
        self, transport: Transport, url: str, kept: tuple[Version, Descriptor] | None, checksum: Digest | None
    ) -> tuple[Version, Descriptor]:
        if kept is not None and checksum is not None and kept[1].digest != checksum:
            kept = None
        conditions = kept[0].conditions if kept else {}
        with transport.send(self._request("GET", url, conditions), size=None) as reply:
            if reply.status == HTTPStatus.NOT_MODIFIED and kept is not None:
                return kept
            _check_status(url, reply)
            return Version.of(reply.headers), self._receive(url, reply, checksum)

    def _receive(self, url: str, reply: Reply, checksum: Digest | None) -> Descriptor:
        """The body as a blob. Raises RegistryError when it breaks off, DigestMismatch."""
        buffer, hasher = memoryview(bytearray(_BLOCK)), hashlib.sha256()
        with self._session.writer() as writer:
            while count := reply.readinto(buffer):
                hasher.update(buffer[:count])
                writer.write_hashed(buffer[:count])
            expected = reply.headers.length()
            if expected is not None and writer.size != expected:
                problem = f"it broke off after {writer.size} of {expected} bytes"
                raise RegistryError(problem, method="GET", url=_shown(url), temporary=True)
            size, digest = writer.size, Digest.from_hash(hasher)
            if checksum is not None and digest != checksum:
                raise DigestMismatch(checksum, digest, what=f"download {_shown(url)}")
            return Descriptor(_MEDIA_TYPE, writer.commit_as(digest), size)

    def _kept(self, url: str) -> tuple[Version, Descriptor] | None:
        """What an earlier build downloaded, if the store still has it: held from now on."""
        record = self._metadata.cached(_key(url))
        if record is None or record.blob is None or not self._session.reuse(record.blob.digest):
            return None
        _, modified, etag = record.label.rsplit(_SEPARATOR, 2)
        return Version(etag, modified), record.blob

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> Request:
        from transfer.registry.wire import Request

        authorization = self._authorization(url)
        return Request(method, url, {**headers, "Authorization": authorization} if authorization else dict(headers))

    def _authorization(self, url: str) -> str:
        """What the secrets have for a URL's host, or the user and password in the URL."""
        import base64
        from urllib.parse import unquote, urlsplit

        from transfer.registry.wire import origin

        where = origin(url)
        for host in dict.fromkeys((where.netloc, where.host)):
            if give := self._secrets.get(f"HTTP_AUTH_HEADER_{host}"):
                return header_value(give(), f"HTTP_AUTH_HEADER_{host}")
            if give := self._secrets.get(f"HTTP_AUTH_TOKEN_{host}"):
                return "Bearer " + header_value(give(), f"HTTP_AUTH_TOKEN_{host}")
        parts = urlsplit(url)
        if parts.username is None:
            return ""
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return "Basic " + base64.b64encode(login.encode()).decode()

    def _connect(self) -> Transport:
        from transfer.registry.transport import Timeouts, Transport

        with self._lock:
            if self._transport is None:
                self._transport = Transport(
                    self._environ, verify=self._tls_verify, timeouts=self._timeouts or Timeouts(), peer="server"
                )
            return self._transport


def header_value(secret: bytes, name: str) -> str:
    """A secret as part of a header: one line, so that it can't add others. Raises InvalidInput."""
    text = secret.decode("latin-1").strip()
    if not text.isprintable():
        raise InvalidInput(f"secret {name} is no header: want one line of printable characters")
    return text


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Let an error say which download it was."""
    try:
        yield
    except RegistryError as error:
        raise RegistryError(
            f"download {_shown(url)}: {error}",
            method=error.method, url=error.url, status=error.status, temporary=error.temporary,
        ) from error  # fmt: skip


def _check_status(url: str, reply: Reply) -> None:
    from transfer.registry.wire import temporary

    if reply.status == HTTPStatus.OK:
        return
    reason = HTTPStatus(reply.status).phrase.lower() if reply.status in set(HTTPStatus) else "unexpected reply"
    advice = ""
    if reply.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        advice = ": give a token with --secret id=HTTP_AUTH_TOKEN_HOST,src=FILE"
    raise RegistryError(
        f"{reply.status} {reason}{advice}",
        method=reply.method, url=_shown(url), status=reply.status, temporary=temporary(reply.status),
    )  # fmt: skip


def _key(url: str) -> str:
    return hashlib.sha256(f"download\0{url}".encode("utf-8", "surrogateescape")).hexdigest()


def _shown(url: str) -> str:
    from transfer.registry.wire import redact

    return redact(url)
