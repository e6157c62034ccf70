"""Manifests and indexes, decoded but never re-encoded.

A manifest's identity is the hash of its bytes, so a decoded one keeps them in ``raw``:
that is what is hashed, stored and pushed. Only ``build`` makes new bytes.

Spec: image-spec "Image Manifest", "Image Index"; Docker "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from image import media_types
from image.descriptor import NO_ANNOTATIONS, Descriptor, decode_descriptor, no_annotations
from image.digest import Digest
from image.document import Node, decode, encode
from image.errors import InvalidManifest
from image.value import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image (or artifact): a config and its layers, bottom to top."""

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""

    @classmethod
    def build(
        cls,
        config: Descriptor,
        layers: Sequence[Descriptor],
        *,
        media_type: str = media_types.OCI_MANIFEST,
        annotations: Mapping[str, str] = NO_ANNOTATIONS,
        subject: Descriptor | None = None,
        artifact_type: str = "",
    ) -> Manifest:
        """A new manifest; the same arguments give the same bytes."""
        raw = encode({
            "schemaVersion": 2,
            "mediaType": media_type,
            "artifactType": artifact_type or None,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
            "subject": subject.to_json() if subject else None,
            "annotations": dict(annotations) or None,
        })  # fmt: skip
        return cls(raw, media_type, config, tuple(layers), annotations, subject, artifact_type)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Every blob it needs: the config, then the layers."""
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """Several manifests under one name, usually one a platform."""

    raw: bytes = field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""

    @classmethod
    def build(
        cls,
        manifests: Sequence[Descriptor],
        *,
        media_type: str = media_types.OCI_INDEX,
        annotations: Mapping[str, str] = NO_ANNOTATIONS,
        subject: Descriptor | None = None,
        artifact_type: str = "",
    ) -> Index:
        """A new index; the same arguments give the same bytes."""
        raw = encode({
            "schemaVersion": 2,
            "mediaType": media_type,
            "artifactType": artifact_type or None,
            "manifests": [manifest.to_json() for manifest in manifests],
            "subject": subject.to_json() if subject else None,
            "annotations": dict(annotations) or None,
        })  # fmt: skip
        return cls(raw, media_type, tuple(manifests), annotations, subject, artifact_type)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))

    @property
    def children(self) -> tuple[Descriptor, ...]:
        return self.manifests


def decode_manifest(raw: bytes, media_type: str = "") -> Manifest | Index:
    """The manifest or index in ``raw``.

    ``media_type`` is what the transport called it (an HTTP Content-Type, a descriptor);
    the document's own ``mediaType`` must agree where both exist.

    Raises InvalidManifest with the path of the offending field.
    """
    document = decode(raw, InvalidManifest)
    kind = _kind(document, media_type.partition(";")[0].strip())
    if document.need("schemaVersion").integer() != 2:
        raise InvalidManifest("schemaVersion", "only 2 is supported; schema 1 images must be converted at their source")
    annotations = document.get("annotations")
    subject = document.get("subject")
    common: dict[str, Any] = {
        "annotations": MappingProxyType(annotations.string_map()) if annotations else NO_ANNOTATIONS,
        "subject": decode_descriptor(subject) if subject else None,
        "artifact_type": document.maybe_string("artifactType"),
    }
    if kind in media_types.INDEXES:
        listed = document.get("manifests")
        manifests = tuple(decode_descriptor(item) for item in listed.items()) if listed else ()
        return Index(raw, kind, manifests, **common)
    layers = document.get("layers")
    return Manifest(
        raw,
        kind,
        decode_descriptor(document.need("config")),
        tuple(decode_descriptor(item) for item in layers.items()) if layers else (),
        **common,
    )


def _kind(document: Node, told: str) -> str:
    """The media type by the document, else by the transport, else by its shape."""
    own = document.maybe_string("mediaType")
    known = media_types.MANIFESTS | media_types.INDEXES
    if own and own not in known:
        raise InvalidManifest("mediaType", f"{own[:100]!r} is not a manifest or an index")
    if own and told in known and own != told:
        raise InvalidManifest("mediaType", f"document says {own}, transport says {told}")
    is_index, is_manifest = document.get("manifests") is not None, document.get("config") is not None
    if is_index and is_manifest:
        raise InvalidManifest("", "both an index and a manifest")
    kind = own or (told if told in known else "")
    if not kind:
        kind = media_types.OCI_INDEX if is_index else media_types.OCI_MANIFEST
    if (kind in media_types.INDEXES and is_manifest) or (kind in media_types.MANIFESTS and is_index):
        raise InvalidManifest("", f"does not have the members of {kind}")
    return kind
