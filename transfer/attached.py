"""What belongs to an image without being named by it: referrers, and the tags that cosign makes.

    manifests of the image → who refers to each, and sha256-….sig, .att, .sbom of each
    → the same of what was found, and so on

Between registries alone: archives and layouts have no place for them. What is found is copied
after the image, as registries may refuse what refers to nothing.

Spec: distribution-spec v1.1 "Listing Referrers", "Referrers Tag Schema"; cosign's "Tag-based Discovery".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import InvalidManifest
from image.value import dataclass, replace
from transfer.conversion import Conversion
from transfer.copy import Copied, CopyOptions, copy, select
from transfer.digest_tags import SUFFIXES, tag_beside
from transfer.graph import named
from transfer.ports import Sink, Source
from transfer.progress import Progress, silent
from transfer.transports.registry import RegistrySink, RegistrySource
from transfer.verify import Verified, verify

_MAX_DEPTH: Final = 4
"""Signatures of signatures of …"""
_MAX_ATTACHED: Final = 2000
_WORKERS: Final = 4
_SIGNATURES: Final = frozenset(
    {"application/vnd.cncf.notary.signature", "application/vnd.dev.cosign.artifact.sig.v1+json"}
)
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
_PREDICATE: Final = "dev.sigstore.bundle.predicateType"
_SIGNED: Final = "https://sigstore.dev/cosign/sign/v1"


@dataclass(frozen=True, slots=True)
class Attachment:
    """``target`` belongs to ``subject``: it refers to it, or stands under ``tag``, which says so."""

    subject: Digest
    target: Descriptor
    tag: str = ""

    @property
    def is_signature(self) -> bool:
        kind = self.target.artifact_type
        bundle = kind.startswith(_BUNDLE) and self.target.annotations.get(_PREDICATE) == _SIGNED
        return self.tag.endswith(".sig") or kind in _SIGNATURES or bundle


@dataclass(frozen=True, slots=True)
class Wish:
    """Whether to look for what is attached (``--referrers``), and what to take of that.

    ``only`` chooses among referrers by their descriptors; what refers to one that was left out is
    left out too. Tags of cosign's have no descriptors that say anything, and are not asked.
    """

    referrers: bool = True
    signatures: bool = True
    only: Callable[[Descriptor], bool] = lambda _referrer: True


def copy_whole(
    source: Source, sink: Sink, options: CopyOptions, wish: Wish = Wish(), progress: Progress = silent
) -> tuple[Copied, tuple[Attachment, ...]]:
    """Copy an image, then what is attached to it, between two registries; elsewhere the image alone.

    Raises InvalidInput, before anything is sent, when a conversion would leave attachments
    behind that name the old digests; else what ``copy`` raises.
    """
    if not (wish.referrers and isinstance(source, RegistrySource) and isinstance(sink, RegistrySink)):
        return copy(source, sink, options, progress), ()
    _, target, document = select(source, sink, options)
    digests = [descriptor.digest for descriptor in named(source, target, document)]
    everything = find(source, digests, wish.only)
    found = tuple(entry for entry in everything if wish.signatures or not entry.is_signature)
    if found and options.conversion and not options.immutable:
        why = f"{len(found)} signatures or other artifacts refer to it, which --no-referrers leaves behind"
        options = replace(options, immutable=why)
    copied = copy(source, sink, options, progress)
    plain = replace(options, platform=None, platforms=(), conversion=Conversion(), immutable="")
    for entry in found:
        there, here = source.beside(entry.tag, entry.target.digest), sink.beside(entry.tag, entry.target.digest)
        with there, here:
            copy(there, here, plain, progress)
    return copied, found


def find(
    source: RegistrySource, manifests: Iterable[Digest], only: Callable[[Descriptor], bool] = lambda _referrer: True
) -> tuple[Attachment, ...]:
    """Everything attached to these manifests, and to what is attached; each once, subjects first.

    Raises InvalidManifest when there is no end to it; RegistryError.
    """
    level = list(dict.fromkeys(manifests))
    seen = set(level)
    found: list[Attachment] = []
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="attached") as pool:
        try:
            for _ in range(_MAX_DEPTH):
                questions = [(digest, suffix) for digest in level for suffix in ("", *SUFFIXES)]
                answers = pool.map(lambda question: _attached(source, *question), questions)
                entries = [entry for several in answers for entry in several]
                new = [
                    entry for entry in entries if entry.tag or (entry.target.digest not in seen and only(entry.target))
                ]
                found += new
                level = [digest for digest in dict.fromkeys(entry.target.digest for entry in new) if digest not in seen]
                seen.update(level)
                if len(found) > _MAX_ATTACHED:
                    raise InvalidManifest("subject", f"more than {_MAX_ATTACHED} artifacts refer to {source.name}")
                if not level:
                    return tuple(found)
        except BaseException:
            source.abort()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    raise InvalidManifest("subject", f"artifacts that refer to {source.name} are nested deeper than {_MAX_DEPTH}")


def _attached(source: RegistrySource, subject: Digest, suffix: str) -> list[Attachment]:
    """What refers to a manifest, or for a ``suffix`` what stands under the tag beside it."""
    if not suffix:
        return [Attachment(subject, target) for target in source.referrers(subject)]
    tag = tag_beside(subject, suffix)
    target = source.tagged(tag)
    return [] if target is None else [Attachment(subject, target, tag)]


def verify_attached(place: RegistrySource, found: Sequence[Attachment]) -> Verified:
    """Prove that what was attached is at the destination, whole, and listed there.

    Raises InvalidManifest for a referrer that nobody would find, and what ``verify`` raises.
    """
    total = Verified()
    for entry in found:
        if not entry.tag and entry.target.digest not in {listed.digest for listed in place.referrers(entry.subject)}:
            problem = f"{entry.target.digest} refers to it, and {place.name} does not list that"
            raise InvalidManifest("subject", problem)
        with place.beside(entry.tag, None if entry.tag else entry.target.digest) as source:
            total += verify(source, entry.target.digest)
    return total
