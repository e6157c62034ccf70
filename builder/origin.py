"""Where a context on the network was: what provenance tells of it."""

from __future__ import annotations

from collections.abc import Mapping

from image.value import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """A context's URL without credentials, and what it was: ``sha1`` of a commit, ``sha256`` of an archive."""

    uri: str
    digest: Mapping[str, str]
