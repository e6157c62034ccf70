"""One repository of a registry: manifests, blobs, uploads, tags.

Small requests are repeated here when their failure is temporary, and a blob that breaks
off is resumed where it stopped. An upload is not repeated here, as its bytes come from
elsewhere: the caller opens them again (``transfer.copy``).

Spec: distribution-spec v1.1, "Pull", "Push", "Content Discovery".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar

from image.descriptor import Descriptor
from image.digest import Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import (
    BlobNotFound,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    ReferenceNotFound,
    RegistryError,
    SizeMismatch,
)
from image.manifest import Index, Manifest, decode_manifest
from image.value import dataclass
from transfer.registry import referrers, wire
from transfer.registry.challenge import Authorizer, unexpected
from transfer.registry.retry import Retry
from transfer.registry.transport import Body, Reply, Transport
from transfer.registry.wire import Request
from transfer.streams import VerifiedBlocks

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_T = TypeVar("_T")
_MAX_PAGES: Final = 1000
_MAX_TAGS_SIZE: Final = 16 << 20
_NO_SUCH_API: Final = frozenset({400, 404, 405, 501})
"""What registries say to a call that they do not know."""
_VERBS: Final = {("pull",): "pull from", ("pull", "push"): "push to"}
_MAX_RESUMES: Final = 5
"""Times in a row that a blob may break off without a byte of progress."""
_MAX_REPLIES: Final = 100
"""Replies that one blob may be pieced together from."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that the registry has opened and waits for at ``location``."""

    location: str


class Repository:
    """``path`` at a registry, asked for with ``actions`` (``pull``, or ``pull`` and ``push``)."""

    def __init__(
        self,
        path: str,
        authorizer: Authorizer,
        transport: Transport,
        *,
        actions: tuple[str, ...] = ("pull",),
        retry: Retry | None = None,
        warn: Callable[[str], None] = lambda _text: None,
        clock: Callable[[], float] = time.time,
        create: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self._create = create
        self.domain = authorizer.domain
        self.transport = transport
        self.retry = retry or Retry(sleep=transport.sleep)
        self._authorizer = authorizer
        self._warn = warn
        self._clock = clock
        self._scopes: tuple[str, ...] = (wire.repository_scope(path, actions),)
        self._no_referrers = False
        self._verb = _VERBS.get(actions, "delete from")
        self.pulls_left: int | None = None
        """How many pulls the registry said last that remain; None where it says nothing."""

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    # Manifests

    def fetch_manifest(self, name: str) -> tuple[Descriptor, Manifest | Index]:
        """What a tag or a digest stands for. By digest the bytes are verified.

        Raises ReferenceNotFound, DigestMismatch, InvalidManifest, RegistryError.
        """

        def fetch() -> tuple[bytes, wire.Headers]:
            request = Request("GET", self._manifest_url(name), {"Accept": wire.MANIFEST_ACCEPT})
            with self._send(request) as reply:
                if reply.status != 200:
                    raise self._refusal(reply, name)
                self._check_length(reply, name)
                return reply.read(MAX_DOCUMENT_SIZE), reply.headers

        raw, headers = self._repeat(fetch)
        promised = _digest(name) or _digest(headers.get("Docker-Content-Digest"))
        digest = Digest.of(raw, promised.algorithm if promised else "sha256")
        if promised and digest != promised:
            raise DigestMismatch(promised, digest, what=f"manifest of {self._shown(name)}")
        manifest = decode_manifest(raw, headers.get("Content-Type") or "")
        return Descriptor(manifest.media_type, digest, len(raw)), manifest

    def head_manifest(self, name: str) -> Descriptor | None:
        """What a tag or digest stands for, without fetching it; None when there is no such manifest.

        Falls back to fetching when the registry's reply does not say it all.
        """
        request = Request("HEAD", self._manifest_url(name), {"Accept": wire.MANIFEST_ACCEPT})

        def head() -> Descriptor | None:
            with self._send(request) as reply:
                if reply.status == 404:
                    return None
                if reply.status != 200:
                    raise self._refusal(reply, name)
                digest = _digest(reply.headers.get("Docker-Content-Digest")) or _digest(name)
                media_type, size = reply.headers.get("Content-Type"), reply.headers.length()
            if digest is None or size is None or not media_type:
                return self.fetch_manifest(name)[0]
            return Descriptor(media_type.partition(";")[0].strip(), digest, size)

        return self._repeat(head)

    def put_manifest(self, name: str, manifest: Manifest | Index) -> None:
        """Store the manifest's exact bytes under a tag or their digest; its children are there.

        What has a subject is listed with it, by the registry or else by us.
        """
        request = Request(
            "PUT", self._manifest_url(name), {"Content-Type": manifest.media_type}, manifest.raw
        )  # fmt: skip

        def put() -> bool:
            with self._send(request) as reply:
                if reply.status not in {200, 201, 202, 204}:
                    raise self._refusal(reply, name)
                stored = _digest(reply.headers.get("Docker-Content-Digest"))
                listed = reply.headers.get("OCI-Subject") is not None
            if stored and stored != Digest.of(manifest.raw, stored.algorithm):
                raise DigestMismatch(manifest.digest, stored, what=f"manifest stored as {self._shown(name)}")
            return listed

        if not self._repeat(put) and manifest.subject is not None:
            referrers.record(self, manifest)

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to ``subject``, by the registry's API or by the tag that stands in for it.

        Raises InvalidManifest, RegistryError.
        """
        return referrers.referrers(self, subject)

    def referrers_pages(self, subject: Digest) -> Iterator[bytes] | None:
        """Each page of the referrers API as an index's bytes; None when the registry does not have it."""
        url = wire.referrers_url(self._authorizer.base(), self.path, subject)
        if self._no_referrers:
            return None
        pages = self._pages(url, MAX_DOCUMENT_SIZE, f"list referrers in {self.name}", absent=_NO_SUCH_API)
        first = next(pages, None)
        if first is None:
            self._no_referrers = True
            return None
        return chain([first], pages)

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest, and with it every tag that names it. Idempotent.

        Raises RegistryError, in a user's words where a registry has switched deleting off.
        """
        request = Request("DELETE", self._manifest_url(str(digest)))

        def delete() -> None:
            with self._send(request) as reply:
                if reply.status in {400, 405}:
                    raise RegistryError(
                        f"{self._verb} {self.name}: the registry does not delete manifests this way",
                        method="DELETE", url=wire.redact(reply.url), status=reply.status,
                    )  # fmt: skip
                if reply.status not in {200, 202, 204, 404}:
                    raise self._refusal(reply, str(digest))

        self._repeat(delete)

    def _manifest_url(self, name: str) -> str:
        return wire.manifest_url(self._authorizer.base(), self.path, name)

    def _check_length(self, reply: Reply, name: str) -> None:
        if (reply.headers.length() or 0) > MAX_DOCUMENT_SIZE:
            raise InvalidManifest("", f"{self._shown(name)} is larger than {MAX_DOCUMENT_SIZE} bytes")

    # Blobs

    def has_blob(self, digest: Digest) -> bool:
        request = Request("HEAD", wire.blob_url(self._authorizer.base(), self.path, digest))

        def head() -> bool:
            with self._send(request) as reply:
                if reply.status == 404:
                    return False
                if reply.status == 200:
                    return True
                raise self._refusal(reply, str(digest))

        return self._repeat(head)

    def check_blob(self, blob: Descriptor) -> None:
        """Raises BlobNotFound, or SizeMismatch where the registry tells another size."""
        request = Request("HEAD", wire.blob_url(self._authorizer.base(), self.path, blob.digest))

        def head() -> int | None:
            with self._send(request) as reply:
                if reply.status == 404:
                    raise BlobNotFound(f"blob {blob.digest} not found in {self.name}")
                if reply.status != 200:
                    raise self._refusal(reply, str(blob.digest))
                return reply.headers.length()

        size = self._repeat(head)
        if size is not None and size != blob.size:
            raise SizeMismatch(blob.size, size, what=f"blob {blob.digest} in {self.name}")

    @contextmanager
    def open_blob(self, blob: Descriptor) -> Iterator[Iterator[memoryview]]:
        """A blob's verified blocks; a connection that breaks is taken up where it stopped.

        Raises BlobNotFound, SizeMismatch, DigestMismatch, RegistryError.
        """
        body = _ResumingBody(self, blob)
        try:
            with VerifiedBlocks(body.readinto, blob) as blocks:
                yield blocks
        finally:
            body.close()

    def get_blob(self, blob: Descriptor, offset: int) -> Reply:
        """A reply whose body is the blob from ``offset`` on. The caller closes it."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = Request("GET", wire.blob_url(self._authorizer.base(), self.path, blob.digest), headers)
        reply = self._send(request, size=blob.size)
        try:
            self._position(reply, blob, offset)
        except BaseException:
            reply.close()
            raise
        return reply

    def _position(self, reply: Reply, blob: Descriptor, offset: int) -> None:
        """Check that a blob reply is what was asked, and bring its body to ``offset``."""
        if reply.status == 404:
            raise BlobNotFound(f"blob {blob.digest} not found in {self.name}")
        if reply.status == 206 and offset and wire.continues(reply.headers, offset, blob.size):
            return
        if reply.status != 200:
            raise self._refusal(reply, str(blob.digest))
        length = reply.headers.length()
        if length is not None and length != blob.size:
            raise SizeMismatch(blob.size, length, what=f"blob {blob.digest} in {self.name}")
        _discard(reply, offset)

    # Uploads

    def begin_upload(self, *, mount: Digest | None = None, source: str = "") -> Upload | None:
        """Open an upload; None when ``mount`` linked the blob from the repository ``source``.

        A registry that can't mount opens an upload instead, or refuses: then it is asked plainly.
        A repository that is missing is made first, where we were given the means to.
        """
        try:
            return self._begin_upload(mount, source)
        except RegistryError as error:
            if self._create is None or "NAME_UNKNOWN" not in error.codes:
                raise
            self._create()
            return self._begin_upload(mount, source)

    def _begin_upload(self, mount: Digest | None, source: str) -> Upload | None:
        scopes = self._scopes
        if mount is not None:
            scopes = (*scopes, wire.repository_scope(source, ["pull"]))

        def post() -> Upload | None:
            url = wire.uploads_url(self._authorizer.base(), self.path, mount=mount, source=source)
            with self._send(Request("POST", url), scopes) as reply:
                if reply.status == 201 and mount is not None:
                    return None
                if reply.status == 202:
                    return Upload(wire.resolve_location(reply.url, reply.headers))
                raise self._refusal(reply, str(mount or ""))

        if mount is None:
            return self._repeat(post)
        try:
            return post()
        except RegistryError:
            return self._begin_upload(None, "")

    def upload(self, blob: Descriptor, blocks: Iterator[ReadableBuffer], upload: Upload) -> None:
        """Send a blob in one request. The registry checks the digest as we do."""
        with self._cancelling(upload):
            url = wire.finish_url(upload.location, blob.digest)
            request = Request("PUT", url, {"Content-Type": "application/octet-stream"})
            with self._send(request, body=Body(blocks, blob.size), size=blob.size) as reply:
                self._check_stored(reply, str(blob.digest))

    def upload_stream(self, blocks: Iterator[ReadableBuffer], upload: Upload, finish: Callable[[], Digest]) -> None:
        """Send a blob whose digest ``finish`` knows once the blocks have ended."""
        with self._cancelling(upload):
            request = Request("PATCH", upload.location, {"Content-Type": "application/octet-stream"})
            with self._send(request, body=Body(blocks, None), size=None) as reply:
                if reply.status not in {201, 202, 204}:
                    raise self._refusal(reply, "")
                location = wire.resolve_location(reply.url, reply.headers)
            digest = finish()
            with self._send(Request("PUT", wire.finish_url(location, digest))) as reply:
                self._check_stored(reply, str(digest))

    def cancel_upload(self, upload: Upload) -> None:
        """Tell the registry to forget an upload; what it answers does not matter."""
        with suppress(Exception):
            self._send(Request("DELETE", upload.location)).close()

    @contextmanager
    def _cancelling(self, upload: Upload) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.cancel_upload(upload)
            raise

    def _check_stored(self, reply: Reply, digest: str) -> None:
        if reply.status not in {201, 202, 204}:
            raise self._refusal(reply, digest)

    # Tags

    def tags(self) -> list[str]:
        """Every tag, in the registry's order. Raises ReferenceNotFound when there is no such repository."""
        url = wire.tags_url(self._authorizer.base(), self.path)
        found: list[str] = []
        for body in self._pages(url, _MAX_TAGS_SIZE, f"list tags of {self.name}"):
            tags = _json_object(body, f"list tags of {self.name}").get("tags") or []
            found += [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        return list(dict.fromkeys(found))

    def catalog(self) -> list[str]:
        """The paths of all repositories of the registry, as far as it tells. Raises RegistryError.

        Spec: distribution's "Listing Repositories"; Quay gives a token for the next page in the reply.
        """
        base = wire.catalog_url(self._authorizer.base())
        what = f"list repositories of {self.domain}"
        found: list[str] = []
        tokens: set[str] = {""}
        url = base
        while True:
            token = ""
            for body in self._pages(url, _MAX_TAGS_SIZE, what, scopes=(wire.CATALOG_SCOPE,)):
                page = _json_object(body, what)
                names, token = page.get("repositories") or [], str(page.get("next_page") or "")
                found += [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
            if token in tokens:
                return list(dict.fromkeys(found))
            if len(tokens) > _MAX_PAGES:
                raise RegistryError(f"{what}: the registry's pages never end", url=wire.redact(url))
            tokens.add(token)
            url = wire.with_query(base, next_page=token)

    def _pages(
        self, url: str, limit: int, what: str, *, absent: frozenset[int] = frozenset(),
        scopes: tuple[str, ...] | None = None,
    ) -> Iterator[bytes]:  # fmt: skip
        """The bodies of a listing, page after page, each up to ``limit`` bytes; none where the first is ``absent``."""
        following: str | None = url
        seen: set[str] = set()
        while following is not None:
            if following in seen or len(seen) >= _MAX_PAGES:
                raise RegistryError(f"{what}: the registry's pages never end", url=wire.redact(url))
            seen.add(following)
            page = self._page(following, limit, absent if len(seen) == 1 else frozenset(), scopes)
            if page is None:
                return
            body, following = page
            yield body

    def _page(
        self, url: str, limit: int, absent: frozenset[int], scopes: tuple[str, ...] | None
    ) -> tuple[bytes, str | None] | None:
        def get() -> tuple[bytes, str | None] | None:
            with self._send(Request("GET", url), scopes) as reply:
                if reply.status in absent:
                    return None
                if reply.status != 200:
                    raise self._refusal(reply, "")
                return reply.read(limit), wire.next_page(reply.url, reply.headers)

        return self._repeat(get)

    # Sending

    def _repeat(self, action: Callable[[], _T]) -> _T:
        return self.retry.call(action)

    def _send(
        self,
        request: Request,
        scopes: tuple[str, ...] | None = None,
        *,
        body: Body | None = None,
        size: int | None = 0,
    ) -> Reply:
        """Send with authorization; a 401 is answered once with a new token, unless a body went with it."""
        wanted = self._scopes if scopes is None else scopes
        reply = self.transport.send(self._authorized(request, wanted), body, size=size)
        for text in wire.warnings(reply.headers):
            self._warn(f"{self.domain}: {text}")
        if (left := wire.pulls_left(reply.headers)) is not None:
            self.pulls_left = left
        if reply.status != 401:
            return reply
        offered = wire.challenges(reply.headers)
        self._authorizer.forget(wanted)
        if not offered or not self._is_ours(reply.url):
            return reply
        with reply:
            if body is not None:
                raise self._expired(reply)
        self._authorizer.learn(offered)
        return self.transport.send(self._authorized(request, _with_asked(wanted, offered)), size=size)

    def _authorized(self, request: Request, scopes: tuple[str, ...]) -> Request:
        """With Authorization, when the URL is the registry's own: a foreign upload host gets none."""
        if not self._is_ours(request.url):
            return request
        header = self._authorizer.header(scopes)
        return request.with_header("Authorization", header) if header else request

    def _is_ours(self, url: str) -> bool:
        return wire.origin(url) == wire.origin(self._authorizer.base())

    def _expired(self, reply: Reply) -> RegistryError:
        """A token that ended during an upload: the whole upload may be tried again with a new one."""
        return RegistryError(
            f"{self._verb} {self.name}: the registry no longer takes the login",
            method=reply.method, url=wire.redact(reply.url), status=401, temporary=True,
        )  # fmt: skip

    # Refusals, in a user's words

    def _shown(self, name: str) -> str:
        return f"{self.path}{'@' if _digest(name) else ':'}{name}"

    def _refusal(self, reply: Reply, name: str) -> Exception:
        error = unexpected(reply, f"{self._verb} {self.name}", self._clock())
        if reply.status == 401 and "DENIED" not in error.codes and self._authorizer.credential.username:
            return self._authorizer.wrong_password(reply)
        if reply.status in {401, 403}:
            return self._denied(error)
        if reply.status == 404 and self._verb == "pull from":
            return self._not_found(name, error)
        return error

    def _denied(self, error: RegistryError) -> RegistryError:
        advice = f"access denied for {self._authorizer.user}: check the name and the permission"
        if self._authorizer.user == "anonymous":
            advice = f"access denied: log in with 'tierce login {self.domain}', and check the name"
        words = str(error).partition(f"answered {error.status}: ")[2]
        return RegistryError(
            f"{self._verb} {self.name}: {advice}" + (f" (the registry says: {words})" if words else ""),
            method=error.method, url=error.url, status=error.status, codes=error.codes,
        )  # fmt: skip

    def _not_found(self, name: str, error: RegistryError) -> ReferenceNotFound:
        what = f"repository {self.path}" if "NAME_UNKNOWN" in error.codes or not name else f"image {self._shown(name)}"
        found = ReferenceNotFound(f"{what} not found in registry {self.domain}")
        found.__cause__ = error
        return found


class _ResumingBody:
    """A blob's bytes as one stream, over as many replies as it takes."""

    def __init__(self, repository: Repository, blob: Descriptor) -> None:
        self._repository = repository
        self._blob = blob
        self._offset = 0
        self._fruitless = 0
        self._broken = 0
        self._reply: Reply | None = None

    def readinto(self, buffer: memoryview) -> int:
        while True:
            try:
                if self._reply is None:
                    self._reply = self._repository.get_blob(self._blob, self._offset)
                count = self._reply.readinto(buffer)
                if count == 0 and self._offset < self._blob.size:
                    raise self._cut_off()
            except RegistryError as error:
                self._prepare_resume(error)
            else:
                self._offset += count
                self._fruitless = 0 if count else self._fruitless
                return count

    def _cut_off(self) -> RegistryError:
        return RegistryError(
            f"pull from {self._repository.name}: blob {self._blob.digest} broke off"
            f" after {self._offset} of {self._blob.size} bytes",
            temporary=True,
        )

    def _prepare_resume(self, error: RegistryError) -> None:
        """Wait for another try, or give up by raising what happened."""
        self.close()
        self._fruitless += 1
        self._broken += 1
        if not error.temporary or self._fruitless >= _MAX_RESUMES or self._broken >= _MAX_REPLIES:
            raise error
        retry = self._repository.retry
        retry.sleep(retry.wait_s(self._fruitless, error.retry_after_s))

    def close(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.close()


def _discard(reply: Reply, count: int) -> None:
    """Read past the start of a body that a registry sends again from its beginning."""
    scratch = memoryview(bytearray(min(count, 1 << 20)))
    while count:
        got = reply.readinto(scratch[:count])
        if not got:
            raise RegistryError("the reply ended before the place to resume at", temporary=True)
        count -= got


def _json_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{what}: the reply is not JSON") from error
    if not isinstance(found, dict):
        raise RegistryError(f"{what}: the reply is not a JSON object")
    return found


def _digest(text: str | None) -> Digest | None:
    try:
        return Digest(text) if text else None
    except InvalidDigest:
        return None


def _with_asked(scopes: tuple[str, ...], offered: list[wire.Challenge]) -> tuple[str, ...]:
    """The scopes, with those that an ``insufficient_scope`` challenge says are missing."""
    asked = [c.get("scope") for c in offered if c.scheme == "bearer" and c.get("error") == "insufficient_scope"]
    extra = [scope for line in asked for scope in line.split()[:8]]
    return tuple(dict.fromkeys((*scopes, *extra)))
