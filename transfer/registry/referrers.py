"""Who refers to a manifest: the referrers API where a registry has it, else an index under a tag.

A registry without the API knows nothing of subjects, so whoever pushes what has one lists it
in the index that stands under ``sha256-<hex>`` of the subject. There is no lock for that: what
another client wrote meanwhile is found by looking again, and then ours is added to theirs.

Spec: distribution-spec v1.1 "Listing Referrers", "Pushing Manifests with Subject", "Referrers Tag Schema".
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import RegistryError
from image.manifest import Index, Manifest, decode_manifest

if TYPE_CHECKING:
    from transfer.registry.client import Repository

_MAX_LISTED: Final = 10_000
_TRIES: Final = 5
_LISTING: Final = threading.Lock()
"""Two threads of this process must not overwrite each other's entry: looking again is for other processes."""


def referrers(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    """Descriptors of what refers to ``subject``, each once. Raises InvalidManifest, RegistryError."""
    found = _by_api(repository, subject)
    return _by_tag(repository, subject) if found is None else found


def _by_api(repository: Repository, subject: Digest) -> tuple[Descriptor, ...] | None:
    """None when the registry does not have the API."""
    found: dict[Digest, Descriptor] = {}
    pages = repository.referrers_pages(subject)
    if pages is None:
        return None
    for page in pages:
        index = decode_manifest(page, media_types.OCI_INDEX)
        found.update((entry.digest, entry) for entry in (index.manifests if isinstance(index, Index) else ()))
        if len(found) > _MAX_LISTED:
            raise RegistryError(f"list referrers of {subject} in {repository.name}: more than {_MAX_LISTED}")
    return tuple(found.values())


def _by_tag(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    index = _tagged(repository, subject)
    return tuple(dict.fromkeys(index.manifests)) if index else ()


def _tagged(repository: Repository, subject: Digest) -> Index | None:
    tag = referrers_tag(subject)
    if repository.head_manifest(tag) is None:
        return None
    document = repository.fetch_manifest(tag)[1]
    return document if isinstance(document, Index) else None


def referrers_tag(subject: Digest) -> str:
    """The tag under which referrers are listed: algorithm and hex, cut to what a tag may be."""
    return f"{subject.algorithm[:32]}-{subject.encoded[:64]}"


def record(repository: Repository, manifest: Manifest | Index) -> None:
    """List a manifest with its subject, after a push to a registry that did not say it had done so.

    Raises RegistryError when others keep overwriting the list.
    """
    if manifest.subject is None or _by_api(repository, manifest.subject.digest) is not None:
        return
    entry = listed_as(manifest)
    with _LISTING:
        for _ in range(_TRIES):
            index = _tagged(repository, manifest.subject.digest)
            entries = index.manifests if index else ()
            if entry.digest in {other.digest for other in entries}:
                return
            annotations = index.annotations if index else {}
            repository.put_manifest(
                referrers_tag(manifest.subject.digest), Index.build([*entries, entry], annotations=annotations)
            )
    raise RegistryError(
        f"push to {repository.name}: {entry.digest} is not in the list of referrers, which others change: try again",
        temporary=True,
    )


def listed_as(manifest: Manifest | Index) -> Descriptor:
    """How a manifest appears among referrers: its kind and its annotations with it."""
    kind = manifest.artifact_type or (manifest.config.media_type if isinstance(manifest, Manifest) else "")
    return replace(manifest.descriptor, artifact_type=kind, annotations=manifest.annotations)
