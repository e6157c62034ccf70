"""``save`` and ``load``: many images of the store in one docker archive, and back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from image.errors import InvalidInput, ReferenceNotFound
from image.reference import Reference
from image.value import dataclass
from store.store import Store
from transfer.copy import CopyOptions, copy
from transfer.ports import Source
from transfer.progress import Progress, silent
from transfer.pull import Pulled, pull_from
from transfer.transports.docker_archive import (
    DockerArchive,
    DockerArchiveSink,
    DockerArchiveSource,
    DockerArchiveWriter,
)
from transfer.transports.local import StoreSource, find_image
from transfer.transports.oci_archive import OciArchiveSource, archived_names
from transfer.transports.tar_input import TarInput


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that came out of an archive, under ``names``, which may be none."""

    names: tuple[Reference, ...]
    pulled: Pulled


def save(images: Sequence[str], path: str, store: Store, options: CopyOptions, progress: Progress = silent) -> None:
    """Write images of the store into one archive that ``docker load`` and ``podman load`` read.

    A name keeps its tag in the archive; an id is saved without a name. ``-`` is standard
    output. The archive appears whole or not at all.
    """
    for image in images:
        find_image(store, image)  # all of them, before anything is written
    with DockerArchiveWriter(path) as writer:
        for image in images:
            with (
                StoreSource(store, image) as source,
                DockerArchiveSink(path, _names_to_save(store, image), writer=writer) as sink,
            ):
                copy(source, sink, options, progress)
        writer.finish()


def _names_to_save(store: Store, image: str) -> list[Reference]:
    try:
        reference = Reference.parse(image).with_default_tag()
    except InvalidInput:
        return []
    return [reference] if reference.digest is None and store.metadata.name(str(reference)) else []


def load(
    path: str, store: Store, options: CopyOptions, progress: Progress = silent, *, unpack: bool | None = None
) -> list[Loaded]:
    """Take every image of an archive into the store, with the names it has there.

    Reads what ``docker save`` writes, old and new, and OCI archives; compressed or not; ``-`` is
    standard input. Layers that are not compressed in the archive are stored as gzip, so that
    a push is small; the image's id (its config's digest) stays what it was.
    """
    with ExitStack() as stack:
        tar = stack.enter_context(TarInput.open(path))
        sources = _docker_sources(tar, stack) if tar.find("manifest.json") else _oci_sources(tar, stack)
        if not sources:
            raise ReferenceNotFound(f"archive {path} has no images")
        return [
            Loaded(names, pull_from(source, store, names, options, progress, unpack=unpack))
            for source, names in sources
        ]


def _docker_sources(tar: TarInput, stack: ExitStack) -> list[tuple[Source, tuple[Reference, ...]]]:
    archive = DockerArchive(tar)
    return [
        (
            stack.enter_context(DockerArchiveSource(tar.name, f"@{number}", archive=archive)),
            tuple(Reference.parse(name) for name in image.names),
        )
        for number, image in enumerate(archive.images)
    ]


def _oci_sources(tar: TarInput, stack: ExitStack) -> list[tuple[Source, tuple[Reference, ...]]]:
    return [
        (stack.enter_context(OciArchiveSource(tar.name, f"@{number}", tar=tar)), names)
        for number, names in enumerate(archived_names(tar))
    ]
