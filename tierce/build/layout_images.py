"""Base images out of OCI layouts: ``--build-context NAME=oci-layout://…``. Implements ``builder.ports.BaseImages``.

Their blobs are copied into the store for the build's session; no name of theirs appears there.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.graph import BaseImage
from builder.ports import BaseImages
from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import ChainID
from image.errors import InvalidManifest
from image.manifest import Index, Manifest
from image.platform import Platform
from image.reference import Reference
from store.store import Session
from tierce.build.contexts import Layout

if TYPE_CHECKING:
    from transfer.transports.oci import OciSource


class LayoutImages:
    """Some names mean images of layouts; all others are asked of ``others``."""

    def __init__(self, others: BaseImages, session: Session, layouts: Mapping[Reference, Layout]) -> None:
        self._others = others
        self._session = session
        self._layouts = layouts
        self._known: dict[tuple[Reference, Platform], BaseImage] = {}
        self._lock = threading.Lock()

    def resolve(self, reference: Reference, platform: Platform) -> BaseImage:
        layout = self._layouts.get(reference)
        if layout is None:
            return self._others.resolve(reference, platform)
        with self._lock:
            if (reference, platform) not in self._known:
                self._known[reference, platform] = self._take(reference, layout, platform)
            return self._known[reference, platform]

    def unpack(self, session: Session, image: BaseImage) -> ChainID | None:
        return self._others.unpack(session, image)

    def _take(self, reference: Reference, layout: Layout, platform: Platform) -> BaseImage:
        from transfer.graph import choose_platform
        from transfer.transports.oci import OciSource

        with OciSource(layout.path, layout.wanted) as source:
            target = source.root()
            document = source.manifest(target)
            while isinstance(document, Index):
                target = choose_platform(document, platform, source.name)
                document = source.manifest(target)
            if document.config.media_type not in media_types.CONFIGS:
                raise InvalidManifest("config", f"{source.name} is not a container image")
            self._copy(source, target, document)
        config = ImageConfig.decode(self._session.content.read(document.config))
        return BaseImage(reference, target, config, document.layers)

    def _copy(self, source: OciSource, target: Descriptor, manifest: Manifest) -> None:
        """The blobs into the store, verified on the way."""
        self._session.put(manifest.raw, target.media_type)
        for blob in (manifest.config, *manifest.layers):
            if media_types.is_foreign(blob.media_type) or self._session.reuse(blob.digest):
                continue
            with source.open_blob(blob) as blocks, self._session.writer() as writer:
                for block in blocks:
                    writer.write_hashed(block)
                writer.commit_as(blob.digest)
