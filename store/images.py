"""What an image in the content store consists of, read from its own documents."""

from __future__ import annotations

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import chain_ids
from image.errors import BlobNotFound, InvalidManifest
from image.manifest import Index, Manifest, decode_manifest
from image.value import dataclass, replace
from store.content import ContentStore
from store.metadata import ImageLayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_MAX_NESTING: Final = 4


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """``blobs`` is everything reachable and present, the target included; ``layers`` bottom to top.

    ``config`` is the image id that docker shows: the config's digest, or an index's own.
    """

    config: str
    platform: str
    created: str
    blobs: tuple[Descriptor, ...]
    layers: tuple[ImageLayer, ...]


def image_facts(content: ContentStore, target: Descriptor) -> ImageFacts:
    """Raises BlobNotFound, InvalidManifest, InvalidConfig."""
    return _facts(content, target, _MAX_NESTING)


def _facts(content: ContentStore, target: Descriptor, depth: int) -> ImageFacts:
    document = decode_manifest(content.read(target), target.media_type)
    if isinstance(document, Manifest):
        return _manifest_facts(content, target, document)
    if depth == 0:
        raise InvalidManifest("manifests", f"indexes are nested deeper than {_MAX_NESTING}")
    return _index_facts(content, target, document, depth)


def _manifest_facts(content: ContentStore, target: Descriptor, manifest: Manifest) -> ImageFacts:
    local = tuple(layer for layer in manifest.layers if not media_types.is_foreign(layer.media_type))
    facts = ImageFacts(str(manifest.config.digest), "", "", (target, manifest.config, *local), ())
    if manifest.config.media_type not in media_types.CONFIGS:
        return facts
    config = ImageConfig.decode(content.read(manifest.config))
    if len(config.diff_ids) != len(manifest.layers):
        problem = f"{len(manifest.layers)} layers, but the config has {len(config.diff_ids)} diff_ids"
        raise InvalidManifest("layers", problem)
    layers = tuple(
        ImageLayer(chain_id, diff_id, layer.digest)
        for chain_id, diff_id, layer in zip(chain_ids(config.diff_ids), config.diff_ids, manifest.layers, strict=True)
    )
    return replace(facts, platform=str(config.platform), created=config.created, layers=layers)


def _index_facts(content: ContentStore, target: Descriptor, index: Index, depth: int) -> ImageFacts:
    blobs, platforms, created = [target], [], ""
    layers: list[ImageLayer] = []
    for child in index.manifests:
        try:
            facts = _facts(content, child, depth - 1)
        except BlobNotFound:
            continue
        blobs.extend(facts.blobs)
        layers.extend(facts.layers)
        platforms.append(facts.platform)
        created = max(created, facts.created)
    return ImageFacts(str(target.digest), ",".join(filter(None, platforms)), created, tuple(blobs), tuple(layers))
