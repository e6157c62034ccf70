"""Tags that stand beside a digest: ``sha256-….sig`` and its like, and the index that stands in for referrers.

Spec: cosign's "Tag-based Discovery"; distribution-spec v1.1, "Referrers Tag Schema".
"""

from __future__ import annotations

import re
from typing import Final

from image.digest import Digest

SUFFIXES: Final = ("sig", "att", "sbom")
_TAG: Final = re.compile(r"(sha\d{3})-([0-9a-f]{64,128})(?:\..+)?")


def tag_beside(digest: Digest, suffix: str) -> str:
    """Where cosign puts what it says of a manifest."""
    return f"{digest.algorithm}-{digest.encoded}.{suffix}"


def digest_of(tag: str) -> str | None:
    """The digest that a tag belongs to; None for an image's own tag."""
    match = _TAG.fullmatch(tag)
    return f"{match[1]}:{match[2]}" if match else None
