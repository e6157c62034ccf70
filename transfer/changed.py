"""An image that is made of another one without a build: other words in its configuration, more layers, another base.

What was changed is a source like any other, so it is copied to any sink: layers of the images
that it is made of come from where they are, and are mounted where a registry can.

Spec: image-spec "OCI Image Configuration", "Image Manifest".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor, no_annotations
from image.digest import DiffID, Digest
from image.document import encode
from image.errors import BlobNotFound, InvalidArchive, InvalidInput, StorageError
from image.manifest import Index, Manifest
from image.platform import Platform
from image.value import dataclass, field
from store.compression import PREFIX_SIZE, detect
from transfer.conversion import is_image, kind_of
from transfer.inspection import look, raw_config
from transfer.layer_streams import packed
from transfer.ports import Block, Blocks, Source
from transfer.transports.files import file_blocks
from transfer.transports.local_ends import LocalEnd

_BLOCK: Final = 1 << 20
_BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
_BASE_NAME: Final = "org.opencontainers.image.base.name"


@dataclass(frozen=True, slots=True)
class Change:
    """What to say otherwise; None and nothing leave what is there. ``()`` empties a command."""

    labels: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    annotations: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    env: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str | None = None
    working_dir: str | None = None
    exposed_ports: tuple[str, ...] = ()
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One image as it is now: its manifest and its configuration's bytes."""

    manifest: Manifest
    config: bytes

    @classmethod
    def of(cls, source: Source, platform: Platform) -> Part:
        """The image of an entered source for a platform. Raises InvalidInput for an artifact."""
        found = look(source, platform)
        if not is_image(found.manifest):
            raise InvalidInput(f"{source.name} is an artifact ({kind_of(found.manifest)}), and no image")
        raw = raw_config(source, found)
        config = ImageConfig.decode(raw)
        if len(config.diff_ids) != len(found.manifest.layers):
            raise InvalidInput(
                f"{source.name} has {len(found.manifest.layers)} layers, its configuration says otherwise"
            )
        return cls(found.manifest, raw)

    def rebuilt(
        self, document: Mapping[str, Any], layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
    ) -> Part:
        """The same kind of image with another configuration and other layers."""
        raw = encode(document)
        manifest = Manifest.build(
            Descriptor.of(raw, self.manifest.config.media_type),
            layers,
            media_type=self.manifest.media_type,
            annotations=self.manifest.annotations if annotations is None else annotations,
        )
        return Part(manifest, raw)

    @property
    def is_docker_s(self) -> bool:
        return self.manifest.media_type == media_types.DOCKER_MANIFEST


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A tar, compressed or not, that becomes a layer: ``descriptor`` is of the blob it is sent as."""

    path: Path
    descriptor: Descriptor
    diff_id: DiffID

    @classmethod
    def read(cls, path: Path) -> LayerFile:
        """Look through a file. What is not compressed is sent as gzip. Raises StorageError, InvalidArchive."""
        codec = _codec_of(path)
        if codec not in {"gzip", "zstd", "uncompressed"}:
            raise InvalidArchive(f"layer {path} is compressed with {codec}: want gzip, zstd or none")
        content, blob, size = hashlib.sha256(), hashlib.sha256(), 0
        with closing(file_blocks(path)) as blocks:
            for piece in _inflated(blocks):
                content.update(piece)
        with _sent(path) as sent:
            for block in sent:
                blob.update(block)
                size += len(block)
        media_type = media_types.oci_layer("zstd" if codec == "zstd" else "gzip")
        return cls(path, Descriptor(media_type, Digest.from_hash(blob), size), DiffID.from_hash(content))

    @contextmanager
    def open(self) -> Iterator[Blocks]:
        with _sent(self.path) as blocks:
            yield self._verified(blocks)

    def _verified(self, blocks: Iterator[bytes]) -> Iterator[Block]:
        hasher = hashlib.sha256()
        for block in blocks:
            hasher.update(block)
            yield block
        if Digest.from_hash(hasher) != self.descriptor.digest:
            raise StorageError(f"layer {self.path} changed while it was read")


def _codec_of(path: Path) -> str:
    with closing(file_blocks(path)) as blocks:
        return detect(next(blocks, b"")[:PREFIX_SIZE])


@contextmanager
def _sent(path: Path) -> Iterator[Iterator[bytes]]:
    """The bytes of the blob: the file's own, or the file compressed, which gives the same bytes each time."""
    plain = _codec_of(path) == "uncompressed"
    with closing(file_blocks(path)) as blocks:
        yield packed(blocks, "gzip") if plain else blocks


def _inflated(blocks: Iterator[bytes]) -> Iterator[bytes]:
    from store.compression import inflated as reader

    read = reader(blocks)
    return iter(lambda: read(_BLOCK), b"")


# What changes, pure


def mutated(part: Part, change: Change) -> Part:
    """The image with other words about it."""
    document = json.loads(part.config)
    container = document["config"] = dict(document.get("config") or {})
    if change.labels:
        container["Labels"] = {**(container.get("Labels") or {}), **change.labels}
    if change.env:
        container["Env"] = _with_env(container.get("Env") or [], change.env)
    if change.exposed_ports:
        ports: dict[str, object] = {port if "/" in port else f"{port}/tcp": {} for port in change.exposed_ports}
        container["ExposedPorts"] = {**(container.get("ExposedPorts") or {}), **ports}
    if change.entrypoint is not None:
        container["Entrypoint"] = list(change.entrypoint)
        container["Cmd"] = None  # as docker does: an old command is no argument of a new entrypoint
    if change.cmd is not None:
        container["Cmd"] = list(change.cmd)
    if change.user is not None:
        container["User"] = change.user
    if change.working_dir is not None:
        container["WorkingDir"] = change.working_dir
    if change.platform is not None:
        document |= {"variant": None} | change.platform.to_json()
    if change.annotations and part.is_docker_s:
        raise InvalidInput("annotate the image: Docker's manifest has no annotations, make it OCI by copy --format oci")
    return part.rebuilt(document, part.manifest.layers, {**part.manifest.annotations, **change.annotations})


def _with_env(before: Sequence[str], new: Mapping[str, str]) -> list[str]:
    kept = [entry for entry in before if entry.partition("=")[0] not in new]
    return [*kept, *(f"{name}={value}" for name, value in new.items())]


def appended(part: Part, layers: Sequence[LayerFile]) -> Part:
    """The image with more layers on top."""
    document = json.loads(part.config)
    document["rootfs"]["diff_ids"] = [
        *(document["rootfs"].get("diff_ids") or []), *(str(layer.diff_id) for layer in layers)
    ]  # fmt: skip
    if document.get("history"):
        document["history"] = [*document["history"], *({"created_by": f"append {layer.path.name}"} for layer in layers)]
    return part.rebuilt(document, [*part.manifest.layers, *(_typed(layer.descriptor, part) for layer in layers)])


def _typed(layer: Descriptor, part: Part) -> Descriptor:
    if not part.is_docker_s:
        return layer
    if layer.media_type == media_types.OCI_LAYER_ZSTD:
        raise InvalidInput(
            "append a zstd layer: Docker's manifest has no type for it, make it OCI by copy --format oci"
        )
    return Descriptor(media_types.DOCKER_LAYER_GZIP, layer.digest, layer.size)


def rebased(part: Part, old: Part, new: Part, new_name: str) -> Part:
    """The image on another base: its own layers stay as they are. Raises InvalidInput when ``old`` is not its base."""
    count = len(old.manifest.layers)
    if [layer.digest for layer in part.manifest.layers[:count]] != [layer.digest for layer in old.manifest.layers]:
        raise InvalidInput("rebase: the image does not begin with the layers of the old base")
    if part.is_docker_s != new.is_docker_s:
        raise InvalidInput("rebase: one is OCI and the other Docker's, make them the same by copy --format")
    document, below, above = (json.loads(entry.config) for entry in (part, old, new))
    for key in ("os", "architecture"):
        if document.get(key) != above.get(key):
            raise InvalidInput(f"rebase: the image is for {document.get(key)}, the new base for {above.get(key)}")
    diff_ids = document["rootfs"]["diff_ids"][count:]
    document["rootfs"]["diff_ids"] = [*(above["rootfs"].get("diff_ids") or []), *diff_ids]
    own = (document.get("history") or [])[len(below.get("history") or []) :]
    history = [*(above.get("history") or []), *own]
    complete = sum(not entry.get("empty_layer") for entry in history) == len(document["rootfs"]["diff_ids"])
    document["history"] = history if complete else None
    told = {_BASE_DIGEST: str(new.manifest.digest), _BASE_NAME: new_name}
    annotations = part.manifest.annotations if part.is_docker_s else {**part.manifest.annotations, **told}
    return part.rebuilt(document, [*new.manifest.layers, *part.manifest.layers[count:]], annotations)


class NewLayer(Protocol):
    """A layer that no source has: a file, or what was made of others."""

    @property
    def descriptor(self) -> Descriptor: ...

    @property
    def diff_id(self) -> DiffID: ...

    def open(self) -> AbstractContextManager[Blocks]:
        """The blob, verified, any number of times."""


class ChangedSource(LocalEnd):
    """What an image has become, as a source. ``sources`` hold what it is made of, and are entered."""

    holds_indexes = False
    synthesized = False

    def __init__(self, part: Part, sources: Mapping[Digest, Source], layers: Sequence[NewLayer] = ()) -> None:
        """``sources``: where each blob is that neither ``part`` nor ``layers`` has."""
        self._part = part
        self._sources = MappingProxyType(dict(sources))
        self._layers = {layer.descriptor.digest: layer for layer in layers}

    @property
    def name(self) -> str:
        return "the changed image"

    @property
    def repository(self) -> Any:
        return next((source.repository for source in self._sources.values() if source.repository), None)

    def root(self) -> Descriptor:
        return self._part.manifest.descriptor

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        if descriptor.digest != self._part.manifest.digest:
            raise BlobNotFound(f"manifest {descriptor.digest} is not in {self.name}")
        return self._part.manifest

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Blocks]:
        if descriptor.digest == self._part.manifest.config.digest:
            return _bytes(self._part.config)
        if layer := self._layers.get(descriptor.digest):
            return layer.open()
        return self._sources[descriptor.digest].open_blob(descriptor)

    def check_blob(self, descriptor: Descriptor) -> None:
        with self.open_blob(descriptor) as blocks:
            for _ in blocks:
                pass

    def abort(self) -> None:
        for source in self._sources.values():
            source.abort()


@contextmanager
def _bytes(data: bytes) -> Iterator[Blocks]:
    yield iter([data])
