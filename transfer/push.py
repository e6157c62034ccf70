"""An image from the store to a registry: blobs it lacks in parallel, the manifest last."""

from __future__ import annotations

from image.reference import Reference
from store.store import Store
from transfer.copy import Copied, CopyOptions, copy
from transfer.progress import Progress, silent
from transfer.registries import Registries
from transfer.transports.local import StoreSource
from transfer.transports.registry import RegistrySink


def push(
    image: str,
    destination: Reference,
    store: Store,
    registries: Registries,
    options: CopyOptions,
    progress: Progress = silent,
) -> Copied:
    """Push the image that ``image`` names in the store to ``destination``; digests stay the same.

    Raises ReferenceNotFound when the store has no such image, RegistryError.
    """
    with StoreSource(store, image) as source, RegistrySink(destination, registries) as sink:
        return copy(source, sink, options, progress)
