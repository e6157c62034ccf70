"""Base images for a build: from the store, else from a registry. Implements ``builder.ports.BaseImages``."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from builder.graph import BaseImage
from builder.ports import BaseImages
from image.digest import ChainID
from image.errors import ReferenceNotFound
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass
from store.store import Session, Store
from tierce.host_platform import host_platform
from tierce.images import find, runnable

if TYPE_CHECKING:
    from transfer.registries import Registries
    from transfer.registry.credential import Credential
    from transfer.registry.retry import Retry

_MAX_CONFIG: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How a build reaches registries; see ``transfer.registries.RegistryOptions``."""

    insecure: bool = False
    authfile: str | None = None
    credential: Credential | None = None
    cert_dir: Path | None = None
    retry: Retry | None = None

    def open(self, environ: Mapping[str, str], uploads: Path | None = None) -> Registries:
        """Connections. Raises InvalidInput."""
        from tierce.registries import user_registries
        from transfer.registries import RegistryOptions

        options = RegistryOptions(
            self.insecure, self.credential, cert_dir=self.cert_dir, retry=self.retry, uploads=uploads
        )
        return user_registries(environ, options, self.authfile)


class StoredImages:
    """Looks each image up once a build. ``pull`` asks the registry even for what the store has, or ``never``."""

    def __init__(
        self,
        store: Store,
        session: Session,
        environ: Mapping[str, str],
        access: RegistryAccess = RegistryAccess(),  # a frozen value
        *,
        pull: Literal["always", "missing", "never"] = "missing",
    ) -> None:
        self._store = store
        self._session = session
        self._environ = environ
        self._pull = pull
        self._access = access
        self._known: dict[tuple[Reference, bool, Platform], BaseImage] = {}
        self._locks: dict[tuple[Reference, bool, Platform], threading.Lock] = {}
        self._lock = threading.Lock()

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        key = (reference, reference.short, platform)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = self._look_up(reference, platform)
            return self._known[key]

    def stored(self, reference: Reference, platform: Platform) -> BaseImage:
        """The image as the store has it. Raises ReferenceNotFound."""
        return self._stored(reference, platform)

    def describe(self, reference: Reference, platform: Platform) -> BaseImage:
        """The image's documents as its registry has them; the store stays as it is. See ``resolve`` for errors."""
        from image.config import ImageConfig
        from image.manifest import Index
        from transfer.graph import choose_platform
        from transfer.mirrors import first_answer
        from transfer.transports.registry import RegistrySource

        with ExitStack() as stack:
            registries = stack.enter_context(self._registries())

            def open_source(meant: Reference) -> RegistrySource:
                source = RegistrySource(meant, registries)
                source.root()
                return source

            reference, source = first_answer(registries.conf.meanings(reference), open_source, str)
            stack.enter_context(source)
            target = source.root()
            document = source.manifest(target)
            if isinstance(document, Index):
                target = choose_platform(document, platform, source.name)
                document = source.manifest(target)
            if isinstance(document, Index):
                raise ReferenceNotFound(f"image {reference.familiar} has no manifest for {platform}")
            if document.config.size > _MAX_CONFIG:
                raise ReferenceNotFound(
                    f"image {reference.familiar} has a configuration of {document.config.size} bytes"
                )
            with source.open_blob(document.config) as blocks:
                config = ImageConfig.decode(b"".join(blocks))
        return BaseImage(reference, target, config, document.layers)

    def unpack(self, session: Session, image: BaseImage) -> ChainID | None:
        from store.unpacking import ensure_unpacked  # a cached build unpacks nothing

        return ensure_unpacked(session, self._store.facts(image.manifest))

    def _look_up(self, reference: Reference, platform: Platform) -> BaseImage:
        """From the store by its name, then by what a short name stands for, then from a registry."""
        if self._pull != "always":
            with suppress(ReferenceNotFound):
                return self._stored(reference, platform)
        with self._registries() as registries:
            meanings = registries.conf.meanings(reference)
            if self._pull != "always" and reference.short:
                for meant in meanings:
                    with suppress(ReferenceNotFound):
                        return self._stored(meant, platform)
            if self._pull == "never":
                raise ReferenceNotFound(
                    f"image {reference.familiar} is not in the store, and --pull=never fetches none"
                )
            meant = self._download(meanings, platform, registries)
        try:
            return self._stored(meant, platform)
        except ReferenceNotFound:
            return self._stored(meant, None)

    def _stored(self, reference: Reference, platform: Platform | None) -> BaseImage:
        """``platform`` None takes an image of a single, other platform as it is, as docker does."""
        found = find(self._store.metadata, str(reference))
        image = runnable(self._store.content, found.record.target, platform, name=reference.familiar)
        for blob in (image.target, *image.manifest.children):
            self._session.reuse(blob.digest)
        return BaseImage(reference, image.target, image.config, image.manifest.layers)

    def _download(self, meanings: Sequence[Reference], platform: Platform, registries: Registries) -> Reference:
        """Pull the first of ``meanings`` that there is, and say which it was."""
        from transfer.copy import CopyOptions
        from transfer.mirrors import first_answer
        from transfer.pull import pull

        def download(meant: Reference) -> None:
            pull(meant, self._store, registries, CopyOptions(host_platform(), platform))

        return first_answer(meanings, download, str)[0]

    def _registries(self) -> Registries:
        return self._access.open(self._environ)


class RememberedImages:
    """Images of another kind, and which of them a build asked for. Implements ``builder.ports.BaseImages``."""

    def __init__(self, images: BaseImages) -> None:
        self._images = images
        self.resolved: dict[tuple[Reference, Platform], BaseImage] = {}

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        found = self._images.resolve(reference, platform)
        self.resolved[reference, platform] = found
        return found

    def unpack(self, session: Session, image: BaseImage) -> ChainID | None:
        return self._images.unpack(session, image)
