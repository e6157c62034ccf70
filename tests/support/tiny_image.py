"""Images of a few files, made by hand, as values: a manifest and the blobs it names."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from image import media_types
from image.config import ContainerConfig, ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.manifest import Index, Manifest
from image.platform import Platform
from image.reference import Reference
from store.store import Store

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


@dataclass(frozen=True, slots=True)
class TinyImage:
    """``blobs`` by digest, without the manifest's own."""

    manifest: Manifest
    blobs: Mapping[str, bytes]
    platform: Platform = AMD64

    @property
    def descriptor(self) -> Descriptor:
        found = self.manifest.descriptor
        return Descriptor(found.media_type, found.digest, found.size, platform=self.platform)


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def tiny_image(
    *layers: Mapping[str, bytes], platform: Platform = AMD64, compress: bool = True, docker_types: bool = False
) -> TinyImage:
    """An image whose layers hold these files; without any, one layer with one file."""
    tars = [layer_tar(files) for files in layers or ({"hello.txt": b"hello\n"},)]
    config = ImageConfig(
        platform,
        ContainerConfig(cmd=("/bin/true",)),
        tuple(DiffID.of(tar) for tar in tars),
        created="2024-01-01T00:00:00Z",
    ).encode()
    packed = [gzip.compress(tar, 1, mtime=0) if compress else tar for tar in tars]
    if docker_types:
        types = (media_types.DOCKER_MANIFEST, media_types.DOCKER_CONFIG, media_types.DOCKER_LAYER_GZIP)
    else:
        types = (
            media_types.OCI_MANIFEST,
            media_types.OCI_CONFIG,
            media_types.OCI_LAYER_GZIP if compress else media_types.OCI_LAYER,
        )
    manifest = Manifest.build(
        Descriptor.of(config, types[1]), [Descriptor.of(data, types[2]) for data in packed], media_type=types[0]
    )
    return TinyImage(manifest, {str(Digest.of(data)): data for data in (config, *packed)}, platform)


def tiny_index(images: Iterable[TinyImage]) -> Index:
    return Index.build([image.descriptor for image in images])


def add_to_store(store: Store, image: TinyImage, name: str) -> Descriptor:
    """Put an image into a store under a name."""
    with store.session() as session:
        for data in image.blobs.values():
            session.put(data, "application/octet-stream")
        target = session.put(image.manifest.raw, image.manifest.media_type)
        store.add_image(target, [Reference.parse(name).with_default_tag()])
    return target
