"""Files in a registry that are no image: pushed, pulled, attached to an image.

An artifact is a manifest whose layers are files, each with its name in an annotation. What is
pulled is a stranger's: a name leads nowhere but into the directory that was asked for.

Spec: image-spec v1.1, "Guidelines for Artifact Usage"; the annotations are those of ORAS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from image.descriptor import NO_ANNOTATIONS, Descriptor
from image.digest import Digest
from image.errors import InvalidInput, InvalidManifest, ReferenceNotFound, StorageError
from image.manifest import Manifest
from image.reference import Reference
from image.value import dataclass
from transfer.ports import Blocks
from transfer.progress import BlobDone, BlobStarted, Progress, counted, one_at_a_time, silent
from transfer.registries import Registries
from transfer.registry.retry import Retry
from transfer.transports.files import NewFile, file_blocks
from transfer.transports.registry import RegistrySink, RegistrySource

TITLE: Final = "org.opencontainers.image.title"
CREATED: Final = "org.opencontainers.image.created"
EMPTY_CONFIG: Final = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
UNKNOWN_ARTIFACT: Final = "application/vnd.unknown.artifact.v1"
FILE: Final = "application/vnd.oci.image.layer.v1.tar"
"""What ORAS calls a file of which nothing is said."""
_UNPACK: Final = "io.deis.oras.content.unpack"
_MAX_REFERRERS: Final = 2000
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class FileToPush:
    """``name`` is what it is called in the artifact."""

    path: Path
    media_type: str
    name: str

    @classmethod
    def parse(cls, text: str) -> FileToPush:
        """``PATH[:MEDIA-TYPE]``. Raises InvalidInput for a path that would lead out of a directory.

        An absolute path, or one with ``..``, goes by its last name.
        """
        path, colon, media_type = text.rpartition(":")
        if not colon or "/" not in media_type or os.path.lexists(text):
            path, media_type = text, ""
        name = os.path.normpath(path)
        if name.startswith(("/", "..")):
            name = os.path.basename(name)
        if not name or name == ".":
            raise InvalidInput(f"{text!r} names no file")
        return cls(Path(path), media_type or FILE, name)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An artifact in a registry: its manifest, by a tag or by its digest alone."""

    reference: Reference
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Referrer:
    """What refers to something, and what refers to that."""

    descriptor: Descriptor
    referrers: tuple[Referrer, ...] = ()


def push(
    reference: Reference,
    files: Sequence[FileToPush],
    registries: Registries,
    *,
    artifact_type: str = "",
    annotations: Mapping[str, str] = NO_ANNOTATIONS,
    config: FileToPush | None = None,
    subject: Descriptor | None = None,
    retry: Retry | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Push files under a tag; with a ``subject``, and by digest alone, as something that is about it.

    Raises InvalidInput, StorageError, RegistryError.
    """
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"two files would be called {name!r} in the artifact")
    emit = one_at_a_time(progress)
    described = [(file, _describe(file)) for file in files]
    top = EMPTY_CONFIG if config is None else _describe(config, titled=False)
    manifest = Manifest.build(
        top,
        [layer for _, layer in described] or [EMPTY_CONFIG],
        annotations=annotations,
        subject=subject,
        artifact_type=artifact_type or ("" if config else UNKNOWN_ARTIFACT),
    )
    if subject is not None:
        reference = Reference.parse(f"{reference.repository}@{manifest.digest}")  # its subject keeps the tag
    with RegistrySink(reference, registries) as sink:
        tries = retry or Retry(attempts=3)
        if top == EMPTY_CONFIG or not described:
            _place(sink, EMPTY_CONFIG, lambda: iter([b"{}"]), tries, emit)
        if config is not None:
            _place(sink, top, lambda: _blocks(config.path), tries, emit)
        for file, layer in described:
            _place(sink, layer, lambda path=file.path: _blocks(path), tries, emit)  # type: ignore[misc]  # bound now
        sink.commit(manifest.descriptor, manifest)
    return Pushed(reference, manifest.descriptor)


def _describe(file: FileToPush, *, titled: bool = True) -> Descriptor:
    """Its digest, by reading it once; a file that changes meanwhile is refused by the registry."""
    hasher, size = Digest.of(b"").hasher(), 0
    for block in _blocks(file.path):
        hasher.update(block)
        size += len(block)
    found = Descriptor(file.media_type, Digest.from_hash(hasher), size)
    return found.with_annotations({TITLE: file.name}) if titled else found


def _blocks(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory: pack it, for example with tar, and push the archive")
    yield from file_blocks(path)


def _place(sink: RegistrySink, blob: Descriptor, read: Callable[[], Blocks], retry: Retry, emit: Progress) -> None:
    if sink.adopt(blob, None) is not None:
        emit(BlobDone(blob, "skipped"))
        return
    emit(BlobStarted(blob, blob.size))
    retry.call(lambda: sink.put_blob(blob, counted(blob, read(), emit)))
    emit(BlobDone(blob, "copied"))


# --- pulling ------------------------------------------------------------------------------


def pull(
    reference: Reference,
    directory: Path,
    registries: Registries,
    *,
    keep_old: bool = False,
    progress: Progress = silent,
) -> tuple[Descriptor, tuple[Path, ...]]:
    """Write the artifact's files below a directory; what it was, and the files, in its order.

    A layer without a name is left out, as ORAS does. A directory that ORAS packed is written as
    its archive, ``NAME.tar.gz``. Each file appears whole or not at all. With ``keep_old`` a file
    that exists is an error.

    Raises ReferenceNotFound, InvalidManifest, InvalidInput, StorageError, RegistryError.
    """
    emit = one_at_a_time(progress)
    with RegistrySource(reference, registries) as source:
        root = source.root()
        manifest = source.manifest(root)
        if not isinstance(manifest, Manifest):
            raise InvalidManifest("", f"{reference.familiar} is an index: name one of its manifests by digest")
        wanted = [(layer, _safe_name(layer)) for layer in manifest.layers if TITLE in layer.annotations]
        written = []
        for layer, name in wanted:
            emit(BlobStarted(layer, layer.size))
            with _new_file(directory, name, keep_old=keep_old) as file, source.open_blob(layer) as blocks:
                for block in counted(layer, blocks, emit):
                    file.write(block)
                file.commit()
            emit(BlobDone(layer, "copied"))
            written.append(directory / name)
    return root, tuple(written)


def _safe_name(layer: Descriptor) -> PurePosixPath:
    title = layer.annotations[TITLE]
    name = PurePosixPath(title)
    if not name.parts or name.is_absolute() or ".." in name.parts or "\0" in title or len(title) > 4096:
        raise InvalidManifest("layers", f"a file is called {title[:100]!r}, which leads out of the directory")
    packed = layer.annotations.get(_UNPACK) == "true"
    return name.with_name(f"{name.name}.tar.gz") if packed else name


@contextmanager
def _new_file(directory: Path, name: PurePosixPath, *, keep_old: bool) -> Iterator[NewFile]:
    """A file below the directory, whose parents are made; none of them may be a link elsewhere."""
    parent = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for part in name.parts[:-1]:
            parent /= part
            if parent.is_symlink():
                raise InvalidInput(f"cannot write {directory / name}: {parent} is a link")
            parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"write {directory / name}: {(error.strerror or 'failed').lower()}") from error
    target = parent / name.name
    if keep_old and os.path.lexists(target):
        raise InvalidInput(f"{target} exists already")
    if target.is_dir():
        raise InvalidInput(f"cannot write {target}: it is a directory")
    with NewFile(target) as file:
        yield file


# --- what refers to it --------------------------------------------------------------------


def discover(
    reference: Reference, registries: Registries, *, artifact_type: str = ""
) -> tuple[Descriptor, tuple[Referrer, ...]]:
    """What a name stands for, and what refers to it, to that, and so on.

    Raises ReferenceNotFound, InvalidManifest, RegistryError.
    """
    repository = registries.repository(reference.with_default_tag())
    named = reference.with_default_tag()
    found = repository.head_manifest(str(named.digest or named.tag))
    if found is None:
        raise ReferenceNotFound(f"{named.familiar} not found")
    seen = {found.digest}

    def below(subject: Digest, depth: int) -> tuple[Referrer, ...]:
        entries = []
        for entry in repository.referrers(subject, "" if depth else artifact_type):
            if entry.digest in seen:
                continue
            seen.add(entry.digest)
            if len(seen) > _MAX_REFERRERS:
                raise InvalidManifest("manifests", f"more than {_MAX_REFERRERS} things refer to {named.familiar}")
            entries.append(Referrer(entry, below(entry.digest, depth + 1) if depth < _MAX_DEPTH else ()))
        return tuple(entries)

    return found, below(found.digest, 0)
