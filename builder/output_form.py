"""How an image is written down: media types, compression, annotations. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from image import media_types
from image.errors import InvalidInput
from image.platform import Platform
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

AnnotationPlace = Literal["manifest", "manifest-descriptor", "index", "index-descriptor"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation and the document it belongs to; of all platforms, or of one."""

    place: AnnotationPlace
    key: str
    value: str
    platform: Platform | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm:
    """``docker`` writes Docker's schema 2 instead of OCI.

    The layers that the build made get ``compression``, and all layers with ``force``; ``level``
    None is the codec's default. ``squash`` makes them one layer, with those of the base if
    ``squash_base``. The same image in the same form has the same digest, whatever was cached.
    """

    docker: bool = False
    compression: Compression = "gzip"
    level: int | None = None
    force: bool = False
    annotations: tuple[Annotation, ...] = ()
    squash: bool = False
    squash_base: bool = False
    omit_history: bool = False

    def check(self) -> None:
        """Raises InvalidInput for what the format or the codec does not have."""
        if self.level is not None:
            from store.compression import compressor

            compressor(self.compression, self.level)
        if self.docker and self.compression == "zstd":
            raise InvalidInput("docker's image format has no zstd layers: use the oci format")
        if self.docker and self.annotations:
            raise InvalidInput("docker's image format has no annotations: use the oci format")

    @property
    def manifest_type(self) -> str:
        return media_types.DOCKER_MANIFEST if self.docker else media_types.OCI_MANIFEST

    @property
    def index_type(self) -> str:
        return media_types.DOCKER_LIST if self.docker else media_types.OCI_INDEX

    @property
    def config_type(self) -> str:
        return media_types.DOCKER_CONFIG if self.docker else media_types.OCI_CONFIG

    def layer_type(self, compression: Compression) -> str:
        return media_types.docker_layer(compression) if self.docker else media_types.oci_layer(compression)

    def notes(self, place: AnnotationPlace, platform: Platform | None = None) -> Mapping[str, str]:
        """The annotations of one document."""
        return {
            note.key: note.value
            for note in self.annotations
            if note.place == place and (note.platform is None or platform is None or note.platform == platform)
        }


DEFAULT_FORM: Final = ImageForm()
"""OCI with gzip layers."""
