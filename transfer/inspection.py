"""What an image anywhere is, without copying it: skopeo's summary, its manifest, its configuration."""

from __future__ import annotations

from typing import Any

from image.config import ImageConfig
from image.descriptor import Descriptor
from image.errors import InvalidInput, InvalidManifest
from image.manifest import Index, Manifest
from image.platform import Platform
from image.value import dataclass
from transfer.conversion import is_image, kind_of
from transfer.graph import MAX_NESTING, choose_platform
from transfer.ports import Source
from transfer.transports.files import read_document


@dataclass(frozen=True, slots=True)
class Found:
    """``root`` is what the name stands for; ``target`` the image in it for a platform."""

    root: Descriptor
    document: Manifest | Index
    target: Descriptor
    manifest: Manifest


def look(source: Source, platform: Platform) -> Found:
    """The image of an entered source for a platform. Raises ReferenceNotFound, InvalidManifest, RegistryError."""
    root = target = source.root()
    document = chosen = source.manifest(root)
    for _ in range(MAX_NESTING):
        if isinstance(chosen, Index):
            target = choose_platform(chosen, platform, source.name)
            chosen = source.manifest(target)
    if isinstance(chosen, Index):
        raise InvalidManifest("manifests", f"indexes are nested deeper than {MAX_NESTING}")
    return Found(root, document, target, chosen)


def raw_config(source: Source, found: Found) -> bytes:
    """The configuration's bytes, verified. Raises BlobNotFound, RegistryError."""
    with source.open_blob(found.manifest.config) as blocks:
        return read_document(blocks, found.manifest.config)


def summary(source: Source, found: Found, tags: list[str] | None, name: str) -> dict[str, Any]:
    """skopeo's ``inspect``. ``tags`` None leaves them out; ``name`` "" is a place that has none.

    Raises InvalidInput for an artifact, which has no configuration of this kind.
    """
    if not is_image(found.manifest):
        raise InvalidInput(f"{source.name} is an artifact ({kind_of(found.manifest)}): --raw shows its manifest")
    raw = raw_config(source, found)
    config = ImageConfig.decode(raw)
    return {
        **({"Name": name} if name else {}),
        "Digest": str(found.root.digest),
        "RepoTags": tags or [],
        "Created": config.created or None,
        "DockerVersion": "",
        "Labels": dict(config.config.labels) or None,
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        **({"Variant": config.platform.variant} if config.platform.variant else {}),
        "Layers": [str(layer.digest) for layer in found.manifest.layers],
        "LayersData": [
            {
                "MIMEType": layer.media_type,
                "Digest": str(layer.digest),
                "Size": layer.size,
                "Annotations": dict(layer.annotations) or None,
            }
            for layer in found.manifest.layers
        ],
        "Env": list(config.config.env) or None,
    }
