"""Manifests of a repository: fetched and verified, asked for, stored, deleted.

Spec: distribution-spec v1.1, "Pulling manifests", "Pushing manifests", "Deleting manifests".
"""

from __future__ import annotations

from image.descriptor import Descriptor
from image.digest import Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import DigestMismatch, InvalidManifest, RegistryError
from image.manifest import Index, Manifest, decode_manifest
from transfer.registry import wire
from transfer.registry.session import Session, maybe_digest
from transfer.registry.transport import Reply
from transfer.registry.wire import Headers, Request


class Manifests(Session):
    """``name`` is a tag or a digest throughout."""

    def fetch_manifest(self, name: str) -> tuple[Descriptor, Manifest | Index]:
        """What a tag or a digest stands for. By digest the bytes are verified.

        Raises ReferenceNotFound, DigestMismatch, InvalidManifest, RegistryError.
        """
        descriptor, manifest, _ = self._fetch_manifest(name)
        return descriptor, manifest

    def _fetch_manifest(self, name: str) -> tuple[Descriptor, Manifest | Index, Headers]:
        def fetch() -> tuple[bytes, Headers]:
            request = Request("GET", self._manifest_url(name), {"Accept": wire.MANIFEST_ACCEPT})
            with self._send(request) as reply:
                if reply.status != 200:
                    raise self._refusal(reply, name)
                self._check_length(reply, name)
                return reply.read(MAX_DOCUMENT_SIZE), reply.headers

        raw, headers = self._repeat(fetch)
        promised = maybe_digest(name) or maybe_digest(headers.get("Docker-Content-Digest"))
        digest = Digest.of(raw, promised.algorithm if promised else "sha256")
        if promised and digest != promised:
            raise DigestMismatch(promised, digest, what=f"manifest of {self._shown(name)}")
        manifest = decode_manifest(raw, headers.get("Content-Type") or "")
        return Descriptor(manifest.media_type, digest, len(raw)), manifest, headers

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
                digest = maybe_digest(reply.headers.get("Docker-Content-Digest")) or maybe_digest(name)
                media_type, size = reply.headers.get("Content-Type"), reply.headers.length()
            if digest is None or size is None or not media_type:
                return self.fetch_manifest(name)[0]
            return Descriptor(media_type.partition(";")[0].strip(), digest, size)

        return self._repeat(head)

    def _store_manifest(self, name: str, manifest: Manifest | Index, *, if_match: str = "") -> Headers:
        """Store the manifest's exact bytes. Raises RegistryError; 412 when ``if_match`` no longer fits."""
        headers = {"Content-Type": manifest.media_type} | ({"If-Match": if_match} if if_match else {})
        request = Request("PUT", self._manifest_url(name), headers, manifest.raw)

        def put() -> Headers:
            with self._send(request) as reply:
                if reply.status not in {200, 201, 202, 204}:
                    raise self._refusal(reply, name)
                return reply.headers

        try:
            stored = self._repeat(put)
        except RegistryError as error:
            if not self._is_stored_already(name, manifest, error):
                raise
            return Headers(())
        told = maybe_digest(stored.get("Docker-Content-Digest"))
        if told and told != Digest.of(manifest.raw, told.algorithm):
            raise DigestMismatch(manifest.digest, told, what=f"manifest stored as {self._shown(name)}")
        return stored

    def _is_stored_already(self, name: str, manifest: Manifest | Index, error: RegistryError) -> bool:
        """Whether an immutable tag is refused although it is what we want it to be."""
        if error.status != 400 or "overwritten" not in error.words:
            return False
        found = self.head_manifest(name)
        return found is not None and found.digest == Digest.of(manifest.raw, found.digest.algorithm)

    def _delete(self, request: Request, name: str) -> None:
        scopes = (wire.repository_scope(self.path, ["pull", self.profile.delete_action]),)

        def delete() -> None:
            with self._send(request, scopes) as reply:
                if reply.status not in {200, 202, 204, 404}:
                    raise self._refusal(reply, name, "delete from")

        self._repeat(delete)

    def _manifest_url(self, name: str) -> str:
        return wire.manifest_url(self._base(), self.path, name)

    def _check_length(self, reply: Reply, name: str) -> None:
        if (reply.headers.length() or 0) > MAX_DOCUMENT_SIZE:
            raise InvalidManifest("", f"{self._shown(name)} is larger than {MAX_DOCUMENT_SIZE} bytes")
