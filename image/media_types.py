"""Media types of image-spec 1.1 and Docker's schema 2, and what they tell.

Spec: image-spec "OCI Image Media Types".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    Compression = Literal["uncompressed", "gzip", "zstd"]


OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD: Final = OCI_LAYER + "+zstd"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"

DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = DOCKER_LAYER + ".gzip"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})

_LAYERS: Final[dict[str, Compression]] = {
    OCI_LAYER: "uncompressed",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "uncompressed",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "uncompressed",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "uncompressed",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


def is_layer(media_type: str) -> bool:
    """Whether this names a file system layer."""
    return media_type in _LAYERS


def is_foreign(media_type: str) -> bool:
    """Whether a layer of this type is fetched from its ``urls`` and never pushed."""
    return "nondistributable" in media_type or ".foreign." in media_type


def layer_compression(media_type: str) -> Compression:
    """How a layer of this type is compressed. KeyError for what is no layer."""
    return _LAYERS[media_type]


def oci_layer(compression: Compression) -> str:
    """The OCI layer media type for a compression."""
    return {"uncompressed": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}[compression]


def docker_layer(compression: Compression) -> str:
    """Docker's layer media type. KeyError for zstd, which schema 2 does not have."""
    return {"uncompressed": DOCKER_LAYER, "gzip": DOCKER_LAYER_GZIP}[compression]
