"""What an OCI image layout says, whether it is a directory or inside a tar: names in its index.

Spec: image-spec "OCI Image Layout".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from image import media_types
from image.descriptor import Descriptor
from image.errors import InvalidManifest, ReferenceNotFound
from image.manifest import Index, decode_manifest

REF_NAME: Final = "org.opencontainers.image.ref.name"
LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'


def decode_index(raw: bytes) -> Index:
    """Raises InvalidManifest."""
    index = decode_manifest(raw, media_types.OCI_INDEX)
    if not isinstance(index, Index):
        raise InvalidManifest("", "index.json is no index")
    return index


def choose(index: Index, wanted: str, where: str) -> Descriptor:
    """The entry that ``wanted`` names: a ref name, ``@N``, or "" when there is only one.

    Raises ReferenceNotFound that lists what there is.
    """
    entries = index.manifests
    if wanted.startswith("@"):
        if wanted[1:].isascii() and wanted[1:].isdigit() and int(wanted[1:]) < len(entries):
            return entries[int(wanted[1:])]
        raise ReferenceNotFound(f"image number {wanted[1:]!r} not found in {where}: it has {len(entries)}")
    if not wanted:
        if len(entries) == 1:
            return entries[0]
        raise ReferenceNotFound(f"{where} has {len(entries)} images: name one of {_names(entries)}")
    for entry in entries:
        if entry.annotations.get(REF_NAME) == wanted:
            return entry
    raise ReferenceNotFound(f"image {wanted!r} not found in {where}: it has {_names(entries)}")


def _names(entries: tuple[Descriptor, ...]) -> str:
    names = [entry.annotations.get(REF_NAME) or f"@{number}" for number, entry in enumerate(entries)]
    return ", ".join(names[:10]) or "none"


def index_with(raw: bytes | None, descriptor: Descriptor, name: str) -> bytes:
    """index.json after an image was added under ``name``; other entries stay exactly as they are.

    What had the name before loses it, as does an entry without a name for one without.
    """
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX}
    if raw:
        document = json.loads(raw)
    others = [entry for entry in document.get("manifests") or [] if _name_of(entry) != name]
    annotations: Mapping[str, str] = {REF_NAME: name} if name else {}
    document["manifests"] = [*others, descriptor.with_annotations(annotations).to_json()]
    return json.dumps(document, separators=(",", ":")).encode()


def _name_of(entry: dict[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(REF_NAME, ""))
