"""Descriptor: what a blob is, how long it is and what it hashes to.

Spec: image-spec "OCI Content Descriptors".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from image.digest import Digest
from image.document import Node
from image.errors import InvalidDigest
from image.platform import Platform, decode_platform
from image.value import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


def no_annotations() -> Mapping[str, str]:
    """The shared empty mapping, as a dataclass default."""
    return NO_ANNOTATIONS


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content. ``size`` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    data: str = ""
    """Base64 of the content itself, where the writer embedded it."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"descriptor of {self.digest} has negative size {self.size}")

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """The descriptor of ``data``."""
        return cls(media_type, Digest.of(data), len(data))

    def with_annotations(self, annotations: Mapping[str, str]) -> Descriptor:
        return replace(self, annotations=MappingProxyType(dict(annotations)))

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "mediaType": self.media_type, "digest": str(self.digest), "size": self.size,
        }  # fmt: skip
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.data:
            document["data"] = self.data
        if self.platform is not None:
            document["platform"] = self.platform.to_json()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document


def decode_digest(node: Node) -> Digest:
    """A digest member, with the field's path in the error."""
    try:
        return Digest(node.string())
    except InvalidDigest as error:
        raise node.fail(str(error)) from error


def decode_descriptor(node: Node) -> Descriptor:
    """A descriptor from outside. Raises the document's error with the field's path."""
    size = node.need("size")
    if size.integer() < 0:
        raise size.fail("negative")
    annotations = node.get("annotations")
    platform = node.get("platform")
    urls = node.get("urls")
    return Descriptor(
        media_type=node.need("mediaType").string(),
        digest=decode_digest(node.need("digest")),
        size=size.integer(),
        annotations=MappingProxyType(annotations.string_map()) if annotations else NO_ANNOTATIONS,
        platform=decode_platform(platform) if platform else None,
        urls=urls.strings() if urls else (),
        artifact_type=node.maybe_string("artifactType"),
        data=node.maybe_string("data"),
    )
