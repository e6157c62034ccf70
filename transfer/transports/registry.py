"""``docker://host/name[:tag|@digest]``: a repository of a registry. Holds indexes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Final, Self

from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import RegistryError
from image.manifest import Index, Manifest
from image.reference import Reference
from image.value import replace
from transfer.ports import Adopted, Block, Blocks
from transfer.registries import Registries
from transfer.registry.client import Repository, Upload

if TYPE_CHECKING:
    from types import TracebackType

    from transfer.upload_journal import Note


QUAY_EXPIRY: Final = "quay.expires-after"
RESUMABLE_FROM = 128 << 20
"""Bytes of a blob from which on its upload is remembered: chunks cost a round trip each."""


class RegistrySource:
    """An image in a registry or the first of its mirrors that has it; a digest wins over a tag."""

    holds_indexes = True
    synthesized = False

    def __init__(self, reference: Reference, registries: Registries) -> None:
        self._reference = reference.with_default_tag()
        self._places = registries.pull_places(self._reference)
        self._known = registries.known_blobs
        self._seen: set[Digest] = set()
        self._chosen: Repository | None = None
        self._forget()

    def _forget(self) -> None:
        self._root: Descriptor | None = None
        self._fetched: dict[Digest, Manifest | Index] = {}

    @property
    def name(self) -> str:
        return f"docker://{self._reference.familiar}"

    @property
    def repository(self) -> Reference:
        return self._reference

    def root(self) -> Descriptor:
        if self._root is None:
            wanted = str(self._reference.digest or self._reference.tag)
            self._chosen, (self._root, document) = self._places.ask(lambda place: place.fetch_manifest(wanted))
            self._fetched[self._root.digest] = document
        return self._root

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        known = self._fetched.get(descriptor.digest)
        return known or self._repository.fetch_manifest(str(descriptor.digest))[1]

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[memoryview]]:
        with self._repository.open_blob(descriptor) as blocks:
            yield blocks
        self._seen.add(descriptor.digest)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the place that has the image has this blob too."""
        return self._repository.has_blob(digest)

    def check_blob(self, descriptor: Descriptor) -> None:
        self._repository.check_blob(descriptor)

    # What is beside the image in its repository

    def beside(self, tag: str, digest: Digest | None) -> RegistrySource:
        """Another image of the same repository, over the same connections: they end together."""
        other = copy(self)
        other._reference = replace(self._reference, tag=tag or None, digest=digest)
        other._forget()
        return other

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What says in its manifest that it is about ``subject``."""
        return tuple(self._repository.referrers(subject))

    def tagged(self, tag: str) -> Descriptor | None:
        """What a tag of the repository stands for."""
        return self._repository.head_manifest(tag)

    @property
    def _repository(self) -> Repository:
        """The place that gave the manifest."""
        if self._chosen is None:
            self.root()
        assert self._chosen is not None, "a root comes from a place"
        return self._chosen

    def abort(self) -> None:
        self._places.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._known is not None and self._chosen is not None and self._seen:
            self._known.add(self._chosen.domain, self._chosen.path, self._seen)


class RegistrySink:
    """A tag, or a digest, in a registry."""

    holds_indexes = True
    prefers_compressed = True
    keeps_manifests = True
    concurrency = 20

    def __init__(self, reference: Reference, registries: Registries, *, tags: Sequence[str] = ()) -> None:
        """``tags``: more names for the image in the same repository."""
        self._reference = reference.with_default_tag()
        self._tags = tuple(tags)
        self._held: set[Digest] = set()
        self._config: Digest | None = None
        self._known = registries.known_blobs
        self._blobs: set[Digest] = set()
        self._repository = registries.repository(reference, push=True)
        self._journal = registries.journal
        self._lock = threading.Lock()
        self._uploads: dict[Digest, Upload] = {}

    @property
    def name(self) -> str:
        return f"docker://{self._reference.familiar}"

    @property
    def required_digest(self) -> Digest | None:
        return self._reference.digest

    def begin(self, manifest: Manifest) -> None:
        self._config = manifest.config.digest

    def find_layer(self, _diff_id: DiffID) -> Descriptor | None:
        return None

    def adopt(self, blob: Descriptor, repository: Reference | None) -> Adopted | None:
        if self._repository.has_blob(blob.digest):
            self._blobs.add(blob.digest)
            return "skipped"
        for path in self._mountable(blob.digest, repository):
            upload = self._repository.begin_upload(mount=blob.digest, source=path)
            if upload is None:
                self._blobs.add(blob.digest)
                return "mounted"
            if self._known is not None:
                self._known.forget(self._repository.domain, path, blob.digest)
            with self._lock:
                other = self._uploads.pop(blob.digest, None)
                self._uploads[blob.digest] = upload  # what the registry opened instead of mounting
            if other is not None:
                self._repository.cancel_upload(other)
        return None

    def _mountable(self, digest: Digest, repository: Reference | None) -> list[str]:
        """Repositories of this registry that have, or may have, a blob: the source itself first."""
        domain, path = self._repository.domain, self._repository.path
        found = [repository.path] if repository and repository.domain == domain and repository.path != path else []
        known = self._known.places(domain, digest, but=path) if self._known is not None else ()
        return list(dict.fromkeys([*found, *known]))

    def put_blob(self, blob: Descriptor, blocks: Blocks) -> None:
        with self._lock:
            upload = self._uploads.pop(blob.digest, None)
            self._blobs.add(blob.digest)
        if blob.digest == self._config and blob.size <= MAX_DOCUMENT_SIZE and self._repository.is_quay:
            blocks = self._watched(blocks)
        if self._journal is None or blob.size < RESUMABLE_FROM:
            self._repository.upload(blob, blocks, upload or self._open())
            return
        with self._journal.note(self._repository.name, blob.digest) as note:
            if note is None:
                self._repository.upload(blob, blocks, upload or self._open())
            else:
                self._put_resumably(blob, blocks, upload, note)

    def _watched(self, blocks: Blocks) -> Iterator[Block]:
        """A configuration on its way: Quay acts on one of its labels, whoever set it."""
        seen = bytearray()
        for block in blocks:
            seen += block
            yield block
        if life := quay_expiry(bytes(seen)):
            self._repository.warn(
                f"{self._reference.familiar} has the label {QUAY_EXPIRY}={life}: Quay deletes the tag after that time"
            )

    def _put_resumably(self, blob: Descriptor, blocks: Blocks, opened: Upload | None, note: Note) -> None:
        """In chunks, from where an earlier process stopped, if the registry still knows that upload.

        What fails for a while, or is interrupted, stays noted. An upload that the registry does
        not let go on is forgotten, and the blob may be sent from its start by the next try.
        """
        earlier = self._find(note.read(), blob.size)
        if earlier and opened:
            self._repository.cancel_upload(opened)
        upload = earlier or opened or self._open()
        note.keep(upload)
        try:
            rest = _after(blocks, upload.offset)
            self._repository.upload_chunks(rest, upload, lambda: blob.digest, keep=note.keep)
        except RegistryError as error:
            if error.temporary:
                raise
            note.forget()
            self._repository.cancel_upload(upload)
            if earlier is None:
                raise
            raise RegistryError(
                f"{error} (an upload of before can't go on)", status=error.status, temporary=True
            ) from error
        note.forget()

    def _find(self, upload: Upload | None, size: int) -> Upload | None:
        """An upload of before as it stands now; None when there is none, or the registry is done with it."""
        if upload is None:
            return None
        try:
            found = self._repository.find_upload(upload)
        except RegistryError as error:
            if error.temporary:
                raise
            return None
        return found if found is not None and found.offset <= size else None

    def put_new_blob(self, media_type: str, blocks: Blocks) -> Descriptor:
        hasher = Digest.of(b"").hasher()
        size = 0

        def counted() -> Iterator[Block]:
            nonlocal size
            for block in blocks:
                hasher.update(block)
                size += len(block)
                yield block

        self._repository.upload_stream(counted(), self._open(), lambda: Digest.from_hash(hasher))
        made = Descriptor(media_type, Digest.from_hash(hasher), size)
        self._blobs.add(made.digest)
        return made

    def _open(self) -> Upload:
        upload = self._repository.begin_upload()
        assert upload is not None, "only a mount can end without an upload"
        return upload

    def has_manifest(self, descriptor: Descriptor) -> bool:
        """A registry takes a manifest only when it has all that it names."""
        if self._repository.head_manifest(str(descriptor.digest)) is None:
            return False
        self._held.add(descriptor.digest)
        return True

    def put_manifest(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self._repository.put_manifest(str(descriptor.digest), manifest)

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        """Under the tags; a reference without one is stored by digest alone."""
        names = [self._reference.tag, *self._tags] if self._reference.tag else [str(descriptor.digest), *self._tags]
        for name in dict.fromkeys(filter(None, names)):
            if not self._stands(name, descriptor, manifest):
                self._repository.put_manifest(name, manifest)
        if self._known is not None:  # the registry has taken the manifest, so it has the blobs
            self._known.add(self._repository.domain, self._repository.path, self._blobs)

    def _stands(self, name: str, descriptor: Descriptor, manifest: Manifest | Index) -> bool:
        """Whether a name says so already: then it is left alone, as some registries refuse to set a tag again.

        What refers to something must be listed there too.
        """
        if descriptor.digest not in self._held:
            return False
        if manifest.subject is not None:
            listed = self._repository.referrers(manifest.subject.digest)
            if descriptor.digest not in {other.digest for other in listed}:
                return False
        if name == str(descriptor.digest):
            return True
        now = self._repository.head_manifest(name)
        return now is not None and now.digest == descriptor.digest

    def beside(self, tag: str, digest: Digest | None) -> RegistrySink:
        """Another place in the same repository, over the same connections: they end together."""
        other = copy(self)
        other._reference = replace(self._reference, tag=tag or None, digest=digest)
        other._tags, other._held, other._uploads = (), set(), {}
        return other

    def abort(self) -> None:
        self._repository.transport.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for upload in self._uploads.values():
            self._repository.cancel_upload(upload)
        self._uploads.clear()


def quay_expiry(config: bytes) -> str:
    """How long Quay keeps a tag of an image with this configuration; "" for as long as its repository."""
    try:
        life = json.loads(config)["config"]["Labels"][QUAY_EXPIRY]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return life if isinstance(life, str) else ""


def _after(blocks: Blocks, offset: int) -> Iterator[Block]:
    """The blocks without their first ``offset`` bytes, which are read and hashed all the same."""
    for block in blocks:
        if offset >= len(block):
            offset -= len(block)
        else:
            yield memoryview(block)[offset:]
            offset = 0
