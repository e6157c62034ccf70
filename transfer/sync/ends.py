"""Both sides of a sync: registries mostly, directories and layouts too, behind addresses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, Literal, TypeVar

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import Cancelled, NotFound, ReferenceNotFound
from image.manifest import Index
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass
from store.store import Store
from transfer.attached import Wish, copy_whole
from transfer.copy import Copied, CopyOptions, copy
from transfer.graph import choose_platform, sparse_index
from transfer.ports import Sink, Source
from transfer.progress import BlobDone, Event, Progress, silent
from transfer.registries import Registries
from transfer.registry.client import Repository
from transfer.registry.retry import Retry
from transfer.sync.plan import Pair, Step
from transfer.transports.address import Places, open_sink, open_source, parse_transport
from transfer.transports.oci import layout_tags

_End = TypeVar("_End", Source, Sink)
Side = Literal["source", "target"]
RegistriesOf = Callable[[Side, str], Registries]
"""The connections to a host, as the source or as the target."""
ProgressOf = Callable[[str], AbstractContextManager[Progress]]
"""For the address that an image is copied to."""
_BLOBS_AT_ONCE: Final = 2
"""Blobs of one image at once: several images are on their way already."""


def _no_progress(_address: str) -> AbstractContextManager[Progress]:
    return nullcontext(silent)


@dataclass(frozen=True, slots=True)
class Seen:
    """What an address stands for, and how many pulls its registry says remain."""

    descriptor: Descriptor
    pulls_left: int | None = None


class Ends:
    """``here`` is this machine's platform, for targets that hold no index. For any number of threads.

    ``progress`` gives what the events of one image's copy go to.
    """

    def __init__(
        self, registries: RegistriesOf, here: Platform, retry: Retry, progress: ProgressOf = _no_progress
    ) -> None:
        self._registries = registries
        self._here = here
        self._retry = retry
        self._progress = progress
        self._lock = threading.Lock()
        self._open: set[Source | Sink] = set()
        self._stopped = False
        self._indexes: dict[Digest, Digest] = {}

    # Looking

    def repositories(self, place: str) -> list[str]:
        """The names in a registry. Raises RegistryError where it does not tell."""
        host = parse_transport(place)[1]
        return self._registries("source", host).repository(Reference.parse(f"{host}/catalog")).catalog()

    def tags(self, side: Side, place: str) -> list[str] | None:
        """Of a repository; None when there is no such repository."""
        transport, rest = parse_transport(place)
        if transport != "docker":
            return layout_tags(Path(rest)) if transport == "oci" else None
        reference = Reference.parse(rest)
        try:
            return self._registries(side, reference.domain).repository(reference).tags()
        except NotFound:
            return None

    def look(self, side: Side, address: str) -> Seen | None:
        """One HEAD, for a registry; for a source, the first of its mirrors that answers. None when nothing is there."""
        transport, rest = parse_transport(address)
        try:
            if transport == "docker":
                return self._look_in_registry(side, Reference.parse(rest).with_default_tag())
            with self._source(side, address) as source:
                return Seen(source.root())
        except NotFound:
            return None

    def _look_in_registry(self, side: Side, reference: Reference) -> Seen | None:
        registries, name = self._registries(side, reference.domain), str(reference.digest or reference.tag)
        if side == "target":
            found = registries.repository(reference).head_manifest(name)
            return Seen(found) if found else None

        def ask(place: Repository) -> Descriptor:
            if (found := place.head_manifest(name)) is None:
                raise ReferenceNotFound(f"{reference.familiar} not found")
            return found

        repository, seen = registries.pull_places(reference).ask(ask)
        return Seen(seen, repository.pulls_left)

    def has_new_referrers(self, pair: Pair, digest: Digest) -> bool:
        """Whether the source lists something wanted that refers to an image, and the target does not.

        One request for an image that nothing refers to, two for others.
        """
        (origin, there), (transport, here) = parse_transport(pair.source), parse_transport(pair.target)
        if (origin, transport) != ("docker", "docker"):
            return False
        source, target = Reference.parse(there), Reference.parse(here)
        listed = self._registries("source", source.domain).repository(source).referrers(digest)
        wanted = {one.digest for one in listed if pair.rule.wants_referrer(one)}
        if wanted:
            known = self._registries("target", target.domain).repository(target).referrers(digest)
            wanted -= {one.digest for one in known}
        return bool(wanted)

    def wanted(self, pair: Pair, seen: Descriptor) -> Digest:
        """The digest that a copy of what was seen would have: another, where only some platforms are wanted.

        That takes the index itself, once for each.
        """
        platforms = pair.rule.platforms
        if not platforms:
            return seen.digest
        if (known := self._indexes.get(seen.digest)) is None:
            with self._source("source", _pinned(pair.source, seen)) as source:
                document = source.manifest(source.root())
                if not isinstance(document, Index):
                    known = seen.digest
                elif len(platforms) == 1:
                    known = choose_platform(document, platforms[0], pair.source).digest
                else:
                    known = sparse_index(document, platforms, pair.source).descriptor.digest
            self._indexes[seen.digest] = known
        return known

    # Changing

    def copy(self, step: Step) -> tuple[Copied, int]:
        """Copy what was seen; also how many bytes went through."""
        pair, sent = step.pair, 0
        platforms = pair.rule.platforms

        options = CopyOptions(
            self._here,
            platforms[0] if len(platforms) == 1 else None,
            platforms if len(platforms) > 1 else (),
            concurrency=_BLOBS_AT_ONCE,
            retry=self._retry,
        )
        source_address = _pinned(pair.source, step.source)
        with self._progress(pair.target) as told, self._source("source", source_address) as source:

            def count(event: Event) -> None:
                nonlocal sent
                if isinstance(event, BlobDone) and event.how == "copied":
                    sent += event.descriptor.size
                told(event)

            with self._sink(pair.target) as sink:
                copied, _ = copy_whole(
                    source, sink, options, Wish(pair.rule.referrers, only=pair.rule.wants_referrer), count
                )
        return copied, sent

    def back_up(self, step: Step) -> None:
        """Give what a copy will replace another name. Raises what a copy raises."""
        with self._source("target", step.pair.target) as source, self._sink(step.backup) as sink:
            copy(source, sink, CopyOptions(self._here, concurrency=_BLOBS_AT_ONCE, retry=self._retry))

    def delete(self, address: str, digest: Digest) -> None:
        """Delete a manifest by its digest, and with it every tag that names it. Raises RegistryError."""
        reference = Reference.parse(parse_transport(address)[1])
        self._registries("target", reference.domain).repository_to_delete_from(reference).delete_manifest(digest)

    # Stopping

    def abort(self) -> None:
        """End every copy at once: it raises Cancelled."""
        with self._lock:
            self._stopped = True
            going = list(self._open)
        for end in going:
            end.abort()

    # Opening

    def _source(self, side: Side, address: str) -> AbstractContextManager[Source]:
        return self._opened(open_source(address, self._places(side, address)))

    def _sink(self, address: str) -> AbstractContextManager[Sink]:
        transport, rest = parse_transport(address)
        if transport == "dir":
            Path(rest).parent.mkdir(parents=True, exist_ok=True)
        return self._opened(open_sink(address, self._places("target", address), all_platforms=True))

    @contextmanager
    def _opened(self, end: _End) -> Iterator[_End]:
        with self._lock:
            if self._stopped:
                raise Cancelled("the sync was stopped")
            self._open.add(end)
        try:
            with end:
                yield end
        finally:
            with self._lock:
                self._open.discard(end)

    def _places(self, side: Side, address: str) -> Places:
        transport, rest = parse_transport(address)
        host = Reference.parse(rest).domain if transport == "docker" else ""
        return Places(_no_store, self._registries(side, host))


def _pinned(address: str, seen: Descriptor) -> str:
    """An image of a registry by the digest that was seen, whatever its tag says by now."""
    if not address.startswith("docker://") or "@" in address:
        return address
    return f"{address}@{seen.digest}"


def _no_store() -> Store:
    raise AssertionError("a sync has no end in the store")
