"""Indexes in the making: a name in the store that stands for a list of images, which grows and is pushed.

What is added is copied into the store first, so that a list is always whole; then the list's
document is made anew and takes its name in one transaction.

Spec: image-spec "Image Index".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor, no_annotations
from image.digest import Digest
from image.errors import InvalidInput, NameInUse, ReferenceNotFound
from image.manifest import Index, Manifest, decode_manifest
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass, field, replace
from store.store import Store
from transfer.copy import CopyOptions, copy
from transfer.ports import Source
from transfer.progress import Progress, silent
from transfer.transports.local import StoreSink


@dataclass(frozen=True, slots=True)
class Annotation:
    """What to say of an entry; "" and nothing leave what is there."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=no_annotations, hash=False)

    def apply(self, entry: Descriptor) -> Descriptor:
        """The entry with what is said. Raises InvalidInput where a platform would be half known."""
        now = entry.platform or Platform("", "")
        platform = Platform(
            self.os or now.os,
            self.architecture or now.architecture,
            self.variant or now.variant,
            self.os_version or now.os_version,
            self.os_features or now.os_features,
        )
        if platform != Platform("", "") and not (platform.os and platform.architecture):
            raise InvalidInput(f"annotate {entry.digest}: a platform has an os and an architecture, say both")
        told = {**entry.annotations, **self.annotations}
        return replace(entry, platform=platform if platform.os else None, annotations=MappingProxyType(told))


def find_list(store: Store, name: Reference) -> tuple[Descriptor, Index]:
    """Raises ReferenceNotFound; InvalidInput for a name of one image."""
    record = store.metadata.name(str(name))
    if record is None:
        raise ReferenceNotFound(f"manifest list {name.familiar} not found in the store")
    document = decode_manifest(store.content.read(record.target), record.target.media_type)
    if not isinstance(document, Index):
        raise InvalidInput(f"{name.familiar} is one image, and no manifest list")
    return record.target, document


def create_list(store: Store, name: Reference, *, amend: bool = False) -> Descriptor:
    """An empty list under a name; with ``amend``, the list that has it already.

    Raises NameInUse; InvalidInput for a name of one image that is to be amended.
    """
    with store.metadata.transaction():
        if store.metadata.name(str(name)) is not None:
            if not amend:
                raise NameInUse(f"{name.familiar} exists in the store: remove it, or use --amend")
            return find_list(store, name)[0]
        return _name(store, name, Index.build([]))


def change_list(
    store: Store, name: Reference, change: Callable[[tuple[Descriptor, ...]], Iterable[Descriptor]]
) -> Descriptor:
    """Give a list other entries; what it is then. The blobs of new ones are held by the caller.

    Raises ReferenceNotFound, InvalidInput.
    """
    with store.metadata.transaction():
        before, index = find_list(store, name)
        entries = list(change(index.manifests))
        changed = Index.build(
            entries, media_type=index.media_type, annotations=index.annotations, subject=index.subject
        )
        if changed.digest == index.digest:
            return before
        target = _name(store, name, changed)
        for image in store.metadata.images():
            if image.target.digest == before.digest and not image.names:
                store.remove_image(before.digest)
    return target


def _name(store: Store, name: Reference, index: Index) -> Descriptor:
    with store.session() as session:
        target = session.put(index.raw, index.media_type)
        store.add_image(target, [name])
    return target


def with_entries(before: Iterable[Descriptor], new: Iterable[Descriptor]) -> list[Descriptor]:
    """The entries with more of them; what is listed again is listed once, as it is now."""
    found = {entry.digest: entry for entry in before}
    found.update((entry.digest, entry) for entry in new)
    return list(found.values())


def entry_named(entries: Iterable[Descriptor], wanted: Iterable[Digest], what: str) -> Descriptor:
    """The one entry that is among ``wanted``. Raises ReferenceNotFound; InvalidInput when there are several."""
    digests = set(wanted)
    found = [entry for entry in entries if entry.digest in digests]
    if not found:
        raise ReferenceNotFound(f"{what} is not in the manifest list")
    if len(found) > 1:
        raise InvalidInput(f"{what} is in the manifest list {len(found)} times: name one by its digest")
    return found[0]


def add_to_list(
    store: Store,
    name: Reference,
    source: Source,
    options: CopyOptions,
    annotation: Annotation = Annotation(),
    progress: Progress = silent,
) -> Descriptor:
    """Copy what an entered source names into the store, and list it; an index's images are listed one by one.

    Raises ReferenceNotFound, InvalidInput, and what ``copy`` raises.
    """
    find_list(store, name)  # before a download
    with _Members(store, holds_indexes=True, progress=progress) as members:
        copied = copy(source, members, options, progress)
        entries = [annotation.apply(entry) for entry in _entries(store, copied.descriptor)]
        return change_list(store, name, lambda before: with_entries(before, entries))


class _Members(StoreSink):
    """A place in the store for what is named by a list alone: the session holds it until the list does."""

    def commit(self, descriptor: Descriptor, manifest: Manifest | Index) -> None:
        self.put_manifest(descriptor, manifest)


def _entries(store: Store, target: Descriptor) -> tuple[Descriptor, ...]:
    """How an image, or each image of an index, stands in a list."""
    document = decode_manifest(store.content.read(target), target.media_type)
    if isinstance(document, Index):
        return document.manifests
    bare = Descriptor(document.media_type, target.digest, target.size, artifact_type=document.artifact_type)
    if target.platform is None and document.config.media_type in media_types.CONFIGS:
        platform = ImageConfig.decode(store.content.read(document.config)).platform
        return (replace(bare, platform=platform),)
    return (replace(bare, platform=target.platform),)
