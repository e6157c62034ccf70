"""An image from a registry (or any source) into the store, unpacked and ready to run.

reference → manifest, verified → platform of an index → missing blobs in parallel, each
layer unpacked while others still arrive → name, in one transaction at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from image.descriptor import Descriptor
from image.reference import Reference
from image.value import dataclass
from store.store import Store
from transfer.copy import CopyOptions, copy
from transfer.ports import Source
from transfer.progress import Progress, one_at_a_time, silent
from transfer.transports.local import StoreSink

if TYPE_CHECKING:
    from transfer.registries import Registries


@dataclass(frozen=True, slots=True)
class Pulled:
    """``target`` is the image in the store; ``source`` what the name stands for at its origin."""

    target: Descriptor
    source: Descriptor
    changed: bool
    """Whether the name stood for something else before."""


def pull(
    reference: Reference,
    store: Store,
    registries: Registries,
    options: CopyOptions,
    progress: Progress = silent,
    *,
    unpack: bool | None = None,
) -> Pulled:
    """Pull one platform of an image from its registry and name it in the store.

    ``unpack`` None unpacks when the process may (as root): others keep blobs, and unpack when
    an image is first used. An interrupted pull leaves the store as it was.

    Raises ReferenceNotFound, RegistryError, VerificationError, InvalidManifest, StorageError.
    """
    from transfer.transports.registry import RegistrySource  # ``load`` comes by here without any HTTP

    wanted = reference.with_default_tag()
    with RegistrySource(wanted, registries) as source:
        return pull_from(source, store, [wanted], options, progress, unpack=unpack)


def pull_from(
    source: Source,
    store: Store,
    names: Iterable[Reference],
    options: CopyOptions,
    progress: Progress = silent,
    *,
    unpack: bool | None = None,
    may_unpack: Callable[[], bool] = lambda: os.geteuid() == 0,
) -> Pulled:
    """Take one platform of an entered source into the store under ``names``."""
    told = one_at_a_time(progress)
    names = [name.with_default_tag() for name in names]
    before = [record.target.digest if (record := store.metadata.name(str(name))) else None for name in names]
    unpacks = may_unpack() if unpack is None else unpack
    origin = "" if source.synthesized else str(source.root().digest)
    with StoreSink(store, names, unpack=unpacks, origin=origin, progress=told) as sink:
        copied = copy(source, sink, options, told)
    changed = any(digest != copied.descriptor.digest for digest in before) or not names
    return Pulled(copied.descriptor, copied.source, changed)
