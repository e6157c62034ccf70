"""``docker-archive:path[:ref|:@N]``: what ``docker save`` writes and ``docker load`` reads.

The archive has no manifest and its layers are uncompressed, so as a source it makes one up
(``synthesized``), and as a sink it inflates layers and names each for its diff_id. It holds
images of one platform, never an index. ``-`` is standard input or output.

Spec: docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Self

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.document import MAX_DOCUMENT_SIZE
from image.errors import BlobNotFound, InvalidArchive, InvalidInput, InvalidManifest, ReferenceNotFound
from image.manifest import Index, Manifest
from image.reference import Reference
from image.value import dataclass
from store.compression import PREFIX_SIZE, detect
from transfer.layer_streams import inflated
from transfer.ports import Adopted, Blocks
from transfer.transports.files import open_part, read_document
from transfer.transports.local_ends import LocalSink, LocalSource
from transfer.transports.tar_input import Member, TarInput
from transfer.transports.tar_output import TarOutput

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One entry of manifest.json: names of members."""

    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchive:
    """An archive open for reading; ``images`` are in the order of its manifest.json."""

    def __init__(self, tar: TarInput) -> None:
        self.tar = tar
        self.path = tar.name
        member = tar.find("manifest.json")
        if member is None:
            hint = ": it is an OCI archive, use oci-archive:" if tar.find("index.json") else ""
            raise InvalidArchive(f"{self.path} is not an archive of docker save, it has no manifest.json{hint}")
        self.images = decode_images(tar.read(member, MAX_DOCUMENT_SIZE), self.path)

    def choose(self, wanted: str) -> ArchivedImage:
        """The image that ``wanted`` names: a reference, ``@N``, or "" when there is only one."""
        if wanted.startswith("@"):
            if wanted[1:].isascii() and wanted[1:].isdigit() and int(wanted[1:]) < len(self.images):
                return self.images[int(wanted[1:])]
            raise ReferenceNotFound(f"image number {wanted[1:]!r} not found in {self.path}: it has {len(self.images)}")
        names = [name for image in self.images for name in image.names]
        if not wanted:
            if len(self.images) == 1:
                return self.images[0]
            raise ReferenceNotFound(f"{self.path} has {len(self.images)} images: name one of {', '.join(names[:10])}")
        full = str(Reference.parse(wanted).with_default_tag())
        for image in self.images:
            if full in {_full_name(name) for name in image.names}:
                return image
        raise ReferenceNotFound(
            f"image {wanted} not found in {self.path}: it has {', '.join(names[:10]) or 'no names'}"
        )


def decode_images(raw: bytes, where: str) -> tuple[ArchivedImage, ...]:
    """manifest.json. Raises InvalidArchive."""

    def strings(value: Any) -> tuple[str, ...]:
        if not isinstance(value or [], list) or not all(isinstance(item, str) for item in value or []):
            raise InvalidArchive(f"manifest.json of {where}: not a list of strings")
        return tuple(value or ())

    try:
        entries = json.loads(raw)
        if not isinstance(entries, list):
            raise InvalidArchive(f"manifest.json of {where}: not a list")
        return tuple(
            ArchivedImage(str(entry["Config"]), strings(entry.get("RepoTags")), strings(entry.get("Layers")))
            for entry in entries
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidArchive(f"manifest.json of {where}: {type(error).__name__}") from error


def _full_name(name: str) -> str:
    try:
        return str(Reference.parse(name).with_default_tag())
    except InvalidInput:
        return name


class DockerArchiveSource(LocalSource):
    """One image of an archive. Without ``archive`` it opens ``path`` itself."""

    holds_indexes = False
    synthesized = True

    def __init__(self, path: str, wanted: str = "", *, archive: DockerArchive | None = None) -> None:
        self._path = path
        self._wanted = wanted
        self._archive = archive
        self._stack = ExitStack()
        self._manifest: Manifest | None = None
        self._members: dict[Digest, Member] = {}

    @property
    def name(self) -> str:
        return f"docker-archive:{self._path}" + (f":{self._wanted}" if self._wanted else "")

    def __enter__(self) -> Self:
        if self._archive is None:
            self._archive = DockerArchive(self._stack.enter_context(TarInput.open(self._path)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def root(self) -> Descriptor:
        if self._manifest is None:
            self._manifest = self._make_manifest()
        return self._manifest.descriptor

    def _make_manifest(self) -> Manifest:
        """A manifest for the layers as they lie in the archive."""
        archive = self._open
        image = archive.choose(self._wanted)
        member = archive.tar.need(image.config)
        raw = archive.tar.read(member, MAX_DOCUMENT_SIZE)
        config = ImageConfig.decode(raw)
        if len(config.diff_ids) != len(image.layers):
            problem = f"{len(image.layers)} layers, but the config has {len(config.diff_ids)} diff_ids"
            raise InvalidArchive(f"{self.name}: {problem}")
        described = Descriptor.of(raw, media_types.OCI_CONFIG)
        self._members[described.digest] = member
        layers = [self._describe(name, diff_id) for name, diff_id in zip(image.layers, config.diff_ids, strict=True)]
        return Manifest.build(described, layers)

    def _describe(self, name: str, diff_id: DiffID) -> Descriptor:
        tar = self._open.tar
        member = tar.need(name)
        codec = detect(os.pread(tar.fd, min(PREFIX_SIZE, member.size), member.offset))
        if codec == "uncompressed":
            layer = Descriptor(media_types.OCI_LAYER, Digest(str(diff_id)), member.size)
        elif codec in {"gzip", "zstd"}:
            media_type = media_types.oci_layer("gzip" if codec == "gzip" else "zstd")
            layer = Descriptor(media_type, _hash_member(tar, member), member.size)
        else:
            raise InvalidArchive(f"layer is compressed with {codec}: want gzip, zstd or none", entry=name)
        self._members[layer.digest] = member
        return layer

    def manifest(self, descriptor: Descriptor) -> Manifest | Index:
        self.root()
        if self._manifest is None or descriptor.digest != self._manifest.digest:
            raise BlobNotFound(f"manifest {descriptor.digest} is not in {self.name}")
        return self._manifest

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Blocks]:
        self.root()
        member = self._members.get(descriptor.digest)
        if member is None:
            raise BlobNotFound(f"blob {descriptor.digest} is not in {self.name}")
        return open_part(self._open.tar.fd, member.offset, descriptor)

    @property
    def _open(self) -> DockerArchive:
        assert self._archive is not None, "used outside its context"
        return self._archive


def _hash_member(tar: TarInput, member: Member) -> Digest:
    hasher = hashlib.sha256()
    position, end = member.offset, member.offset + member.size
    while position < end:
        block = os.pread(tar.fd, min(1 << 20, end - position), position)
        if not block:
            raise InvalidArchive(f"{tar.name} is truncated")
        hasher.update(block)
        position += len(block)
    return Digest.from_hash(hasher)


class DockerArchiveWriter:
    """An archive being written: any number of images, one after the other, then ``finish``.

    A context manager; leaving it without ``finish`` leaves nothing.
    """

    def __init__(self, path: str, tar: TarOutput | None = None) -> None:
        self.path = path
        self.tar = tar or TarOutput(path)
        self._images: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self.tar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.tar.__exit__(kind, error, tb)

    def add_image(self, config: str, names: Iterable[str], layers: list[str]) -> None:
        """List an image whose members are written."""
        entry = self._images.setdefault(config, {"Config": config, "RepoTags": [], "Layers": layers})
        entry["RepoTags"] = list(dict.fromkeys([*entry["RepoTags"], *names]))

    def finish(self) -> None:
        """Write the table of contents and make the archive visible."""
        self.tar.add("manifest.json", json.dumps(list(self._images.values()), separators=(",", ":")).encode())
        self.tar.finish()


class DockerArchiveSink(LocalSink):
    """A place for one image in an archive. Without ``writer`` it writes ``path`` by itself."""

    holds_indexes = False
    prefers_compressed = False
    keeps_manifests = False
    concurrency = 1

    def __init__(
        self, path: str, names: Iterable[Reference] = (), *, writer: DockerArchiveWriter | None = None
    ) -> None:
        self._path = path
        self._names = tuple(name.with_default_tag() for name in names)
        self._own = writer is None
        self._writer = writer or DockerArchiveWriter(path)
        self._manifest: Manifest | None = None
        self._diff_ids: tuple[DiffID, ...] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"docker-archive:{self._path}"

    def __enter__(self) -> Self:
        if self._own:
            self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._own:
            self._writer.__exit__(kind, error, tb)

    def begin(self, manifest: Manifest) -> None:
        """Raises InvalidManifest for what ``docker load`` could not run."""
        if manifest.config.media_type not in media_types.CONFIGS:
            raise InvalidManifest("config.mediaType", f"{self.name} holds container images only")
        for layer in manifest.layers:
            if not media_types.is_layer(layer.media_type) or media_types.is_foreign(layer.media_type):
                raise InvalidManifest("layers", f"{self.name} cannot hold a layer of type {layer.media_type}")
        self._manifest = manifest

    def adopt(self, blob: Descriptor, _repository: Reference | None) -> Adopted | None:
        if self._diff_ids is None or self._manifest is None or blob.digest == self._manifest.config.digest:
            return None
        return "skipped" if self._writer.tar.has(_layer_name(self._diff_id(blob))) else None

    def put_blob(self, blob: Descriptor, blocks: Blocks) -> None:
        with self._lock:
            assert self._manifest is not None, "a blob before begin"
            if blob.digest == self._manifest.config.digest:
                raw = read_document(blocks, blob)
                self._diff_ids = self._checked_diff_ids(raw, self._manifest)
                self._writer.tar.add(f"{blob.digest.encoded}.json", raw)
                return
            diff_id = self._diff_id(blob)
            if media_types.layer_compression(blob.media_type) == "uncompressed" and str(diff_id) == str(blob.digest):
                self._writer.tar.add_blocks(_layer_name(diff_id), blob.size, blocks)
            else:
                self._writer.tar.add_unsized(_layer_name(diff_id), inflated(blocks, diff_id))

    def put_new_blob(self, _media_type: str, _blocks: Blocks) -> Descriptor:
        raise InvalidManifest("layers", f"{self.name} takes layers by their diff_id only")

    def _checked_diff_ids(self, raw: bytes, manifest: Manifest) -> tuple[DiffID, ...]:
        diff_ids = ImageConfig.decode(raw).diff_ids
        if len(diff_ids) != len(manifest.layers):
            problem = f"{len(manifest.layers)} layers, but the config has {len(diff_ids)} diff_ids"
            raise InvalidManifest("layers", problem)
        return diff_ids

    def _diff_id(self, blob: Descriptor) -> DiffID:
        """The diff_id of the layer that this blob holds, by the config."""
        assert self._manifest is not None, "a blob before begin"
        assert self._diff_ids is not None, "a layer before the config"
        return self._diff_ids[[layer.digest for layer in self._manifest.layers].index(blob.digest)]

    def put_manifest(self, _descriptor: Descriptor, _manifest: Manifest | Index) -> None:
        raise InvalidManifest("", f"{self.name} cannot hold an index")

    def commit(self, _descriptor: Descriptor, manifest: Manifest | Index) -> None:
        assert isinstance(manifest, Manifest), "an index in a transport that holds none"
        names = [str(name) for name in self._names]  # podman takes a short name for localhost/name
        layers = [_layer_name(diff_id) for diff_id in self._diff_ids or ()]
        self._writer.add_image(f"{manifest.config.digest.encoded}.json", names, layers)
        if self._own:
            self._writer.finish()


def _layer_name(diff_id: DiffID) -> str:
    return f"{diff_id.encoded}.tar"
