"""What refers to a manifest: signatures, attestations, and whatever else names it as its subject.

A registry has an API for it, or none. Without, the client keeps an index under a tag that
is made of the subject's digest, and several clients may change it at once.

Spec: distribution-spec v1.1, "Listing Referrers", "Referrers Tag Schema", "Pushing Manifests with Subject".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from image import media_types
from image.descriptor import NO_ANNOTATIONS, Descriptor
from image.digest import Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import InvalidManifest, NotFound, ReferenceNotFound, RegistryError
from image.manifest import Index, Manifest, decode_manifest
from transfer.registry import wire
from transfer.registry.manifests import Manifests
from transfer.registry.session import maybe_digest
from transfer.registry.wire import Request

_MAX_PAGES: Final = 100
_MAX_LISTED: Final = 10_000
_MAX_CHANGES: Final = 20
"""Tries to change a tag's index before giving up."""
_LONGEST_SETTLE_S: Final = 1.0

_LOCKS: Final = tuple(threading.Lock() for _ in range(64))
"""Threads that push referrers of one subject share one of these."""


class Referrers(Manifests):
    """Listing, and keeping the list right when a referrer comes or goes."""

    _has_referrers_api: bool | None = None
    """As found by asking; None before."""

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Manifests that name ``subject``, those of one ``artifact_type`` where it is given.

        Empty when there are none, or no such repository. Raises RegistryError, InvalidManifest.
        """
        found = self._api_referrers(subject, artifact_type)
        if found is None:
            index, _ = self._tag_index(subject)
            found = list(index.manifests) if index else []
        wanted = (entry for entry in found if not artifact_type or entry.artifact_type == artifact_type)
        return tuple({entry.digest: entry for entry in wanted}.values())

    def put_manifest(self, name: str, manifest: Manifest | Index) -> None:
        """Store the manifest's exact bytes under a tag or their digest; its children are there.

        When it has a subject, it is then among that subject's referrers.
        """
        reply = self._store_manifest(name, manifest)
        if manifest.subject is None:
            return
        told = maybe_digest(reply.get("OCI-Subject"))
        if told == manifest.subject.digest and self.profile.subject_told_is_true:
            return
        if self._api_referrers(manifest.subject.digest, "") is None:
            entry = listed_as(manifest)
            self._change_tag_index(manifest.subject.digest, lambda entries: [*_without(entries, entry.digest), entry])

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest, and with it every tag that names it. Idempotent.

        Raises RegistryError, in a user's words where a registry has switched deleting off.
        """
        subject = self._subject_of(digest)
        self._delete(Request("DELETE", self._manifest_url(str(digest))), str(digest))
        if subject and self._api_referrers(subject, "") is None:
            self._change_tag_index(subject, lambda entries: _without(entries, digest))

    def delete_tag(self, tag: str) -> None:
        """Delete a tag alone, where a registry can do that. Idempotent. Raises RegistryError."""
        self._delete(Request("DELETE", self._manifest_url(tag)), tag)

    def _subject_of(self, digest: Digest) -> Digest | None:
        try:
            _, manifest = self.fetch_manifest(str(digest))
        except (NotFound, InvalidManifest):
            return None
        return manifest.subject.digest if manifest.subject else None

    # The API

    def _api_referrers(self, subject: Digest, artifact_type: str) -> list[Descriptor] | None:
        """None when the registry has no such API."""
        if self._has_referrers_api is False:
            return None
        url: str | None = wire.referrers_url(self._base(), self.path, subject, artifact_type)
        found: dict[Digest, Descriptor] = {}
        asked: set[str] = set()
        while url is not None:
            if url in asked or len(asked) >= _MAX_PAGES or len(found) > _MAX_LISTED:
                raise RegistryError(f"list referrers of {subject} in {self.name}: the registry's pages never end")
            asked.add(url)
            page, url = self._referrers_page(url)
            if page is None:
                self._has_referrers_api = False
                return None
            found.update((entry.digest, entry) for entry in page.manifests)
        self._has_referrers_api = True
        return list(found.values())

    def _referrers_page(self, url: str) -> tuple[Index | None, str | None]:
        def get() -> tuple[Index | None, str | None]:
            with self._send(Request("GET", url, {"Accept": media_types.OCI_INDEX})) as reply:
                kind = (reply.headers.get("Content-Type") or "").partition(";")[0].strip()
                if reply.status in {400, 404, 405, 501} or (reply.status == 200 and kind != media_types.OCI_INDEX):
                    return None, None
                if reply.status != 200:
                    raise self._refusal(reply)
                index = decode_manifest(reply.read(MAX_DOCUMENT_SIZE), kind)
                assert isinstance(index, Index), "by its media type"
                return index, wire.next_page(reply.url, reply.headers)

        return self._repeat(get)

    # The tag

    def _tag_index(self, subject: Digest) -> tuple[Index | None, str]:
        """What the subject's tag has, and its ETag; None where there is none."""
        try:
            _, found, headers = self._fetch_manifest(referrers_tag(subject))
        except ReferenceNotFound:
            return None, ""
        if not isinstance(found, Index):
            raise InvalidManifest("", f"tag {referrers_tag(subject)} of {self.name} is no index of referrers")
        return found, headers.get("ETag") or ""

    def _change_tag_index(self, subject: Digest, change: Callable[[Iterable[Descriptor]], list[Descriptor]]) -> None:
        """Change the entries of a subject's tag, so that they stay changed.

        Threads of this process take turns. Other clients are met by If-Match where the registry
        heeds it; elsewhere the tag is read again, once everybody who read it before our write
        has had the time to write, and changed again when it was overwritten.
        """
        with _lock_for(self.domain, self.path, subject):
            for _ in range(_MAX_CHANGES):
                started_s = time.monotonic()
                index, etag = self._tag_index(subject)
                before = list(index.manifests) if index else []
                if (after := change(before)) == before:
                    return
                try:
                    changed = Index.build(after, annotations=index.annotations if index else NO_ANNOTATIONS)
                    self._store_manifest(referrers_tag(subject), changed, if_match=etag)
                except RegistryError as error:
                    if error.status != 412:
                        raise
                    continue
                self.transport.sleep(min(2 * (time.monotonic() - started_s), _LONGEST_SETTLE_S))
        raise RegistryError(
            f"push to {self.name}: the list of referrers of {subject} is changed by others all the time",
            temporary=True,
        )


def referrers_tag(subject: Digest) -> str:
    """The tag under which a registry without the API keeps a subject's referrers."""
    return f"{subject.algorithm[:32]}-{subject.encoded[:64]}"


def listed_as(manifest: Manifest | Index) -> Descriptor:
    """How a manifest stands in the list of its subject's referrers."""
    kind = manifest.artifact_type
    if not kind and isinstance(manifest, Manifest):
        kind = manifest.config.media_type
    found = manifest.descriptor
    return Descriptor(found.media_type, found.digest, found.size, manifest.annotations, artifact_type=kind)


def _without(entries: Iterable[Descriptor], digest: Digest) -> list[Descriptor]:
    return [entry for entry in entries if entry.digest != digest]


def _lock_for(domain: str, path: str, subject: Digest) -> threading.Lock:
    return _LOCKS[hash((domain, path, subject)) % len(_LOCKS)]
