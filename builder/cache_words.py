"""``--cache-from`` and ``--cache-to``: what the user wrote, as values. Pure.

Spec: dockerfile.md 4, "Backends" and "Common attributes".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from builder.output_words import parse_fields
from image.errors import InvalidInput
from image.reference import Reference
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

_COMPRESSIONS: Final[Mapping[str, Compression]] = {"uncompressed": "uncompressed", "gzip": "gzip", "zstd": "zstd"}
_ABSENT: Final[Mapping[str, str]] = {
    "gha": "keep a directory of type=local with actions/cache",
    "s3": "keep it in a registry, or sync a directory of type=local",
    "azblob": "keep it in a registry, or sync a directory of type=local",
}
"""BuildKit's other places, with what to do instead."""


@dataclass(frozen=True, slots=True)
class InlineCache:
    """Records inside the image itself."""


@dataclass(frozen=True, slots=True)
class RegistryCache:
    """A tag of a registry: a cache of its own, or an image with inline records."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class LocalCache:
    """A directory in OCI layout. ``tag`` or ``digest`` says which cache of it."""

    path: Path
    tag: str = "latest"
    digest: str = ""


CachePlace = InlineCache | RegistryCache | LocalCache


@dataclass(frozen=True, slots=True)
class CacheExport:
    """Where a cache goes and what is in it.

    Without ``every_step``, the steps whose layers are in the result (mode=min). ``mounts`` adds
    the contents of the cache mounts that the build names. ``compression`` None keeps blobs as
    they are. ``ignore_error``: a failure is a warning.
    """

    place: CachePlace
    every_step: bool = False
    mounts: bool = False
    compression: Compression | None = None
    level: int | None = None
    ignore_error: bool = False


def parse_cache_from(words: Iterable[str]) -> tuple[RegistryCache | LocalCache, ...]:
    """Raises InvalidInput."""
    return tuple(_parse_from(word) for word in words)


def _parse_from(word: str) -> RegistryCache | LocalCache:
    fields = _fields(word)
    kind = fields.pop("type", "registry")
    if kind == "local":
        place: RegistryCache | LocalCache = LocalCache(
            Path(_need(word, fields, "src")), fields.pop("tag", "latest"), fields.pop("digest", "")
        )
    elif kind == "registry":
        place = RegistryCache(Reference.parse(_need(word, fields, "ref")).with_default_tag())
    else:
        raise _unknown(word, kind, "registry and local")
    _refuse_rest(word, fields)
    return place


def parse_cache_to(words: Iterable[str]) -> tuple[CacheExport, ...]:
    """Raises InvalidInput."""
    return tuple(_parse_to(word) for word in words)


def _parse_to(word: str) -> CacheExport:
    fields = _fields(word)
    kind = fields.pop("type", "registry")
    place: CachePlace
    if kind == "inline":
        place = InlineCache()
    elif kind == "registry":
        place = RegistryCache(Reference.parse(_need(word, fields, "ref")).with_default_tag())
    elif kind == "local":
        place = LocalCache(Path(_need(word, fields, "dest")), fields.pop("tag", "latest"))
    else:
        raise _unknown(word, kind, "inline, registry and local")
    mode = _choice(word, fields, "mode", ("min", "max"), "min")
    mounts = _flag(word, fields, "mounts", default=False)
    if kind == "inline" and (mode == "max" or mounts):
        raise InvalidInput(f"invalid cache {word!r}: an image holds mode=min alone: use type=registry or local")
    for name in ("image-manifest", "oci-mediatypes"):
        if not _flag(word, fields, name, default=True):
            raise InvalidInput(f"invalid cache {word!r}: {name}=false is not supported: caches are OCI image manifests")
    compression = fields.pop("compression", "")
    if compression and compression not in _COMPRESSIONS:
        raise InvalidInput(f"invalid cache {word!r}: compression {compression!r}: want {', '.join(_COMPRESSIONS)}")
    level = fields.pop("compression-level", "")
    if level and not (level.lstrip("-").isdigit() and compression):
        raise InvalidInput(f"invalid cache {word!r}: compression-level {level!r}: want a number, and compression=")
    _flag(word, fields, "force-compression", default=False)  # blobs get the compression that is named, always
    ignore_error = _flag(word, fields, "ignore-error", default=False)
    _refuse_rest(word, fields)
    if level:
        from store.compression import compressor

        compressor(_COMPRESSIONS[compression], int(level))
    return CacheExport(
        place, mode == "max", mounts, _COMPRESSIONS[compression] if compression else None,
        int(level) if level else None, ignore_error,
    )  # fmt: skip


def _fields(word: str) -> dict[str, str]:
    """A word without ``=`` is the name of an image."""
    return parse_fields(word, "cache") if "=" in word else {"ref": word}


def _need(word: str, fields: dict[str, str], name: str) -> str:
    value = fields.pop(name, "")
    if not value:
        raise InvalidInput(f"invalid cache {word!r}: {name}= is missing")
    return value


def _choice(word: str, fields: dict[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = fields.pop(name, default)
    if value not in allowed:
        raise InvalidInput(f"invalid cache {word!r}: {name}={value}: want {' or '.join(allowed)}")
    return value


def _flag(word: str, fields: dict[str, str], name: str, *, default: bool) -> bool:
    return _choice(word, fields, name, ("true", "false"), "true" if default else "false") == "true"


def _unknown(word: str, kind: str, known: str) -> InvalidInput:
    if kind in _ABSENT:
        return InvalidInput(f"invalid cache {word!r}: type={kind} is not supported: {_ABSENT[kind]}")
    return InvalidInput(f"invalid cache {word!r}: unknown type {kind!r}: there are {known}")


def _refuse_rest(word: str, fields: Mapping[str, str]) -> None:
    if fields:
        raise InvalidInput(f"invalid cache {word!r}: unknown attribute {sorted(fields)[0]!r}")
