"""``--cache-from`` and ``--cache-to``: caches of builds elsewhere. Who names none imports nothing for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from image.errors import InvalidInput
from tierce.cli.command import Settings

if TYPE_CHECKING:
    from builder.cache_words import CacheExport
    from builder.progress import Progress
    from store.store import Session
    from tierce.build.building import SolvedBuild
    from tierce.build.cache import OpenedCache
    from tierce.build.outputs import Surroundings
    from tierce.cli.build_flags import BuildFlags
    from transfer.registries import Registries


def cache_exports(flags: BuildFlags, build_args: Mapping[str, str]) -> tuple[CacheExport, ...]:
    """What ``--cache-to`` and BUILDKIT_INLINE_CACHE ask for. Raises InvalidInput."""
    words = list(flags.cache_to)
    if build_args.get("BUILDKIT_INLINE_CACHE", "").lower() in {"1", "true"}:
        words.append("type=inline")
    if not words:
        return ()
    from builder.cache_words import InlineCache, parse_cache_to

    exports = parse_cache_to(words)
    if flags.squash and any(isinstance(export.place, InlineCache) for export in exports):
        raise InvalidInput("a squashed image has no layers of steps to cache: use type=registry or local")
    return exports


@contextmanager
def open_connections(settings: Settings, flags: BuildFlags) -> Iterator[Callable[[], Registries]]:
    """Registries, opened when they are first called for, and closed at the end."""
    access = flags.access()
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(access.open(settings.environ, settings.root / "uploads")))


@contextmanager
def open_caches(
    flags: BuildFlags, session: Session, registries: Callable[[], Registries], progress: Progress
) -> Iterator[Sequence[OpenedCache]]:
    """The caches of ``--cache-from`` that can be read; a warning for each other one."""
    if not flags.cache_from:
        yield ()
        return
    from builder.cache_words import parse_cache_from
    from tierce.build.cache import CacheImporter

    places = parse_cache_from(flags.cache_from)
    with CacheImporter(session.store, registries, progress) as importer:
        yield importer.open(places)


def inline_records(exports: Sequence[CacheExport]) -> Callable[[SolvedBuild], dict[str, object] | None]:
    """What an image's configuration gets for an inline cache."""
    if not exports:
        return lambda _: None
    from tierce.build.cache import inline_members

    return lambda build: inline_members(exports, build)


def write_caches(
    exports: Sequence[CacheExport],
    builds: Sequence[SolvedBuild],
    imported: Sequence[OpenedCache],
    around: Surroundings,
    progress: Progress,
) -> None:
    """Raises RegistryError, StorageError unless the error is to be ignored."""
    if exports:
        from tierce.build.cache import CacheExporter

        CacheExporter(around.session, builds, imported, around.registries, around.here, progress).write(exports)
