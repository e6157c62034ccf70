"""Base images for a build: from the store, else from a registry. Implements ``builder.ports.BaseImages``."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from builder.graph import BaseImage
from image.digest import ChainID
from image.errors import ReferenceNotFound
from image.platform import Platform
from image.reference import Reference
from store.store import Session, Store
from tierce.images import find, host_platform, runnable


class StoredImages:
    """Looks each image up once a build. ``pull`` asks the registry even for what the store has."""

    def __init__(
        self, store: Store, session: Session, environ: Mapping[str, str], *, pull: bool = False, tls_verify: bool = True
    ) -> None:
        self._store = store
        self._session = session
        self._environ = environ
        self._pull = pull
        self._tls_verify = tls_verify
        self._known: dict[tuple[Reference, Platform], BaseImage] = {}
        self._locks: dict[tuple[Reference, Platform], threading.Lock] = {}
        self._lock = threading.Lock()

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        key = (reference, platform)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = self._look_up(reference, platform)
            return self._known[key]

    def unpack(self, session: Session, image: BaseImage) -> ChainID | None:
        from store.unpacking import ensure_unpacked  # a cached build unpacks nothing

        return ensure_unpacked(session, self._store.facts(image.manifest))

    def _look_up(self, reference: Reference, platform: Platform) -> BaseImage:
        if self._pull:
            self._download(reference, platform)
        try:
            return self._stored(reference, platform)
        except ReferenceNotFound:
            if self._pull:
                raise
        self._download(reference, platform)
        return self._stored(reference, platform)

    def _stored(self, reference: Reference, platform: Platform) -> BaseImage:
        found = find(self._store.metadata, str(reference))
        image = runnable(self._store.content, found.record.target, platform, name=reference.familiar)
        for blob in (image.target, *image.manifest.children):
            self._session.reuse(blob.digest)
        return BaseImage(reference, image.target, image.config, image.manifest.layers)

    def _download(self, reference: Reference, platform: Platform) -> None:
        from transfer.copy import CopyOptions
        from transfer.credentials import Credentials, credential_files
        from transfer.pull import pull
        from transfer.registries import Registries, RegistryOptions

        credentials = Credentials(credential_files(self._environ), self._environ)
        options = RegistryOptions(insecure=not self._tls_verify)
        with Registries(self._environ, credentials, options) as registries:
            pull(reference, self._store, registries, CopyOptions(host_platform(), platform))
