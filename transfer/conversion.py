"""What a copy changes of an image when it is asked to: its form, and the compression of its layers. Pure.

The configuration keeps its bytes in either form, so an image's id never changes, and an image
that goes from Docker's form to OCI's and back loses nothing (skopeo writes it anew, without
Docker's own members, such as the health check).

Spec: image-spec "Compatibility Matrix"; Docker "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from image import media_types
from image.descriptor import NO_ANNOTATIONS, Descriptor
from image.digest import Digest
from image.errors import InvalidInput
from image.manifest import Index, Manifest
from image.value import dataclass, replace
from store.compression import compressor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

Form = Literal["oci", "v2s2"]

_OCI_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_TO_DOCKER: Final = {
    media_types.OCI_MANIFEST: media_types.DOCKER_MANIFEST,
    media_types.OCI_INDEX: media_types.DOCKER_LIST,
    media_types.OCI_CONFIG: media_types.DOCKER_CONFIG,
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
    _OCI_FOREIGN: _DOCKER_FOREIGN,
    f"{_OCI_FOREIGN}+gzip": f"{_DOCKER_FOREIGN}.gzip",
}
_TO_OCI: Final = {docker: oci for oci, docker in _TO_DOCKER.items()} | {
    f"{media_types.DOCKER_LAYER}.zstd": media_types.OCI_LAYER_ZSTD
}
_ABOUT_THE_STREAM: Final = ("io.github.containers.zstd-chunked.", "containerd.io/snapshot/")
"""Annotations about places inside a layer's compressed bytes: wrong for other bytes."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to change; nothing at all by default. Make one with ``of``."""

    form: Form | None = None
    compression: Compression | None = None
    level: int | None = None
    """Of whatever the copy compresses; None is the codec's own default."""
    plain_only: bool = False
    """Whether layers that have another compression already stay as they are."""

    @classmethod
    def of(cls, form: Form | None, compression: Compression | None, level: int | None = None) -> Conversion:
        """zstd makes it OCI. Raises InvalidInput for zstd in Docker's form, and for a level that is none."""
        if compression == "zstd":
            if form == "v2s2":
                raise InvalidInput("zstd layers need --format oci: Docker's manifest has no type for them")
            form = "oci"
        if level is not None:
            compressor(compression or "gzip", level)
        return cls(form, compression, level)

    def __bool__(self) -> bool:
        return self.form is not None or self.compression is not None

    def changes(self, document: Manifest | Index) -> bool:
        """Whether this document becomes another one, by itself (an index also does when its children do).

        Raises InvalidInput for what can't be had in the form.
        """
        if isinstance(document, Index):
            return self._renamed(document.media_type) != document.media_type
        if not is_image(document):
            self._check_artifact(document)
            return False
        renamed = self._rename_all(document, document.children)
        return (
            bool(list(self.to_pack(document)))
            or renamed != document.children
            or self._type_of(document) != (document.media_type)
        )

    def to_pack(self, manifest: Manifest) -> Iterator[Descriptor]:
        """Layers that get another compression."""
        if self.compression is None or not is_image(manifest):
            return
        for layer in manifest.layers:
            now = media_types.layer_compression(layer.media_type)
            stays = now == self.compression or (self.plain_only and now != "uncompressed")
            if not stays and not media_types.is_foreign(layer.media_type):
                yield layer

    def manifest(self, manifest: Manifest, packed: Mapping[Digest, Descriptor]) -> Manifest:
        """The image in this form, with layers that were packed anew. Docker's form has no annotations."""
        media_type = self._type_of(manifest)
        names = _TO_DOCKER if media_type == media_types.DOCKER_MANIFEST else {}
        new = {
            old: replace(blob, media_type=names.get(blob.media_type, blob.media_type)) for old, blob in packed.items()
        }
        layers = [new.get(layer.digest, layer) for layer in manifest.layers]
        config, *layers = self._rename_all(manifest, (manifest.config, *layers))
        annotations = manifest.annotations if media_type == media_types.OCI_MANIFEST else NO_ANNOTATIONS
        return Manifest.build(config, layers, media_type=media_type, annotations=annotations, subject=manifest.subject)

    def index(self, index: Index, placed: Mapping[Digest, Descriptor]) -> Index:
        """The index of what its children have become."""
        media_type = self._renamed(index.media_type)
        oci = media_type == media_types.OCI_INDEX
        names = {str(before): str(after.digest) for before, after in placed.items()}
        children = []
        for child in index.manifests:
            told = {key: names.get(value, value) for key, value in child.annotations.items()} if oci else {}
            after = placed[child.digest]
            children.append(
                replace(
                    child,
                    media_type=after.media_type,
                    digest=after.digest,
                    size=after.size,
                    annotations=MappingProxyType(told),
                    artifact_type=child.artifact_type if oci else "",
                )
            )
        return Index.build(
            children,
            media_type=media_type,
            annotations=index.annotations if oci else NO_ANNOTATIONS,
            subject=index.subject if oci else None,
            artifact_type=index.artifact_type if oci else "",
        )

    def _type_of(self, manifest: Manifest) -> str:
        return self._renamed(manifest.media_type)

    def _renamed(self, media_type: str) -> str:
        names = {None: {}, "oci": _TO_OCI, "v2s2": _TO_DOCKER}[self.form]
        return names.get(media_type, media_type)

    def _rename_all(self, manifest: Manifest, blobs: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """Config and layers under the form's media types; annotations of a layer only where they may be."""
        renamed = tuple(replace(blob, media_type=self._renamed(blob.media_type)) for blob in blobs)
        if self._type_of(manifest) != media_types.DOCKER_MANIFEST:
            return renamed
        for blob in renamed[1:]:
            if (self.compression is None or self.plain_only) and media_types.layer_compression(
                blob.media_type
            ) == "zstd":
                raise InvalidInput(
                    f"manifest {manifest.digest} has zstd layers, which Docker's form can't hold: "
                    "add --dest-compress-format gzip"
                )
        if self.form != "v2s2":
            return renamed
        return tuple(replace(blob, annotations=NO_ANNOTATIONS, data="", artifact_type="") for blob in renamed)

    def _check_artifact(self, manifest: Manifest) -> None:
        if self._type_of(manifest) != manifest.media_type:
            raise InvalidInput(
                f"manifest {manifest.digest} is an artifact ({kind_of(manifest)}), which --format {self.form} "
                "can't hold: choose images with --platform"
            )


def is_image(manifest: Manifest) -> bool:
    """Whether this is a container image, whose layers are file systems, and no artifact or attestation."""
    return (
        manifest.config.media_type in media_types.CONFIGS
        and not manifest.artifact_type
        and manifest.subject is None
        and all(media_types.is_layer(layer.media_type) for layer in manifest.layers)
    )


def kind_of(manifest: Manifest) -> str:
    """What an artifact is: its artifactType, its config's type, or what its first layer is."""
    if manifest.artifact_type:
        return manifest.artifact_type
    if manifest.config.media_type in media_types.CONFIGS and manifest.layers:
        return manifest.layers[0].media_type
    return manifest.config.media_type


def packed_layer(layer: Descriptor, packed: Descriptor) -> Descriptor:
    """The descriptor of a layer that was packed anew, with those of its annotations that are still true."""
    kept = {key: value for key, value in layer.annotations.items() if not key.startswith(_ABOUT_THE_STREAM)}
    return replace(packed, annotations=MappingProxyType(kept))
