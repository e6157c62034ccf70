"""Attestations beside an image, in the index that has both, as BuildKit stores them.

An attestation is a manifest of platform unknown/unknown whose layers are in-toto statements; two
annotations of its descriptor say which image it is about.

Spec: BuildKit docs/attestations/attestation-storage.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from builder.outputs import BuiltImage
from image import media_types
from image.config import ContainerConfig, ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID
from image.manifest import Manifest
from image.platform import Platform
from image.value import replace
from store.store import Session

_STATEMENT: Final = "https://in-toto.io/Statement/v0.1"
_IN_TOTO: Final = "application/vnd.in-toto+json"
_NOWHERE: Final = Platform("unknown", "unknown")


def write_attestation(
    session: Session, image: BuiltImage, names: Sequence[str], predicate_type: str, predicate: Mapping[str, object]
) -> Descriptor:
    """The descriptor of a manifest with one statement about ``image``, ready for an index. Raises StorageError.

    ``names`` are the image's, as Package URLs. The same arguments give the same digest.
    """
    digest = image.manifest.digest
    statement = {
        "_type": _STATEMENT,
        "predicateType": predicate_type,
        "subject": [{"name": name, "digest": {digest.algorithm: digest.encoded}} for name in names],
        "predicate": predicate,
    }
    data = json.dumps(statement, separators=(",", ":")).encode()
    layer = session.put(data, _IN_TOTO).with_annotations({"in-toto.io/predicate-type": predicate_type})
    config = ImageConfig(_NOWHERE, ContainerConfig(), (DiffID(str(layer.digest)),))
    manifest = Manifest.build(session.put(config.encode(), media_types.OCI_CONFIG), [layer])
    about = {"vnd.docker.reference.digest": str(digest), "vnd.docker.reference.type": "attestation-manifest"}
    written = session.put(manifest.raw, manifest.media_type)
    return replace(written, platform=_NOWHERE).with_annotations(about)
