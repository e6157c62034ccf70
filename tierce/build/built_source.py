"""A built image as a source of a copy, before it has a name: the build's session holds its blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer.transports.local import StoreSource

if TYPE_CHECKING:
    from image.descriptor import Descriptor
    from store.store import Store


class BuiltSource(StoreSource):
    """The image that ``target`` describes, whether or not it is visible in the store."""

    def __init__(self, store: Store, target: Descriptor) -> None:
        super().__init__(store, str(target.digest))
        self._target = target

    def root(self) -> Descriptor:
        return self._target
