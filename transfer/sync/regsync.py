"""regsync's YAML: ``version``, ``creds``, ``defaults`` and ``sync``.

Go templates in names and credentials are expanded by ``render``; a backup's template is
kept, as it is about the image that is replaced.

Spec: regclient's documentation of regsync.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from image.errors import InvalidInput
from image.platform import Platform
from image.value import dataclass
from transfer.sync.fields import Fields
from transfer.sync.rules import Access, Configuration, Floor, Kind, ReferrerFilter, Rule, Selection, pattern
from transfer.sync.semver import Range

Render = Callable[[str], str]
"""Expands a Go template without data. Raises InvalidInput."""

_SHARED: Final = (
    "backup", "digestTags", "fastCheck", "forceRecursive", "includeExternal", "interval", "mediaTypes", "ratelimit",
    "referrerFilters", "referrers", "schedule",
)  # fmt: skip
_DEFAULTS: Final = (*_SHARED, "cacheCount", "cacheTime", "blobLimit", "parallel", "skipDockerConfig", "userAgent")
_ENTRY: Final = (*_SHARED, "source", "target", "type", "tags", "tagSets", "repos", "platform", "platforms")
_CREDENTIAL: Final = (
    "registry", "hostname", "user", "pass", "token", "tls", "regcert", "pathPrefix", "repoAuth", "reqPerSec",
    "reqConcurrent", "credExpire", "mirrors", "priority", "blobChunk", "blobMax", "api",
)  # fmt: skip
_SHORTEST_RETRY_S: Final = 300.0
_OCI_DIRECTORY: Final = "ocidir://"


def parse(data: bytes, name: str, render: Render, here: Platform) -> Configuration:
    """The rules of a file. Raises InvalidInput that says where in the file."""
    top = Fields.read(data, name)
    for key in list(top.items):
        if key.startswith("x-"):  # a place for YAML anchors
            del top.items[key]
    top.only("version", "creds", "defaults", "sync")
    if top.number("version", 1) != 1:
        raise InvalidInput(f"{name}: version {top.number('version')} is not known: this reads version 1")
    defaults = top.mapping("defaults")
    _refuse_commands(defaults)
    defaults.only(*_DEFAULTS)
    common = _Shared.read(defaults, _Shared())
    return Configuration(
        tuple(_rule(entry, common, render, here) for entry in top.mappings("sync")),
        dict(_access(entry, render) for entry in top.mappings("creds")),
        max(0, defaults.number("parallel")),
        own_credentials=not defaults.flag("skipDockerConfig", default=False),
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What an entry says itself or takes from ``defaults``."""

    backup: str = ""
    due: str = ""
    floor: Floor = Floor()
    companions: bool = True
    referrers: bool = True
    media_types: frozenset[str] = frozenset()
    always: bool = False
    filters: tuple[ReferrerFilter, ...] = ()
    asked: bool = False
    """Whether ``referrers: true`` is written down, and not just the default here."""
    fast: bool = False

    @classmethod
    def read(cls, fields: Fields, above: _Shared) -> _Shared:
        limit = fields.mapping("ratelimit")
        limit.only("min", "retry")
        retry_s = max(limit.seconds("retry"), _SHORTEST_RETRY_S) if "retry" in limit.items else above.floor.retry_s
        return cls(
            fields.text("backup", above.backup),
            _due(fields) or above.due,
            Floor(limit.number("min", above.floor.pulls), retry_s),
            fields.flag("digestTags", default=above.companions),
            fields.flag("referrers", default=above.referrers),
            frozenset(fields.texts("mediaTypes")) or above.media_types,
            fields.flag("forceRecursive", default=above.always),
            tuple(_referrer_filter(one) for one in fields.mappings("referrerFilters")) or above.filters,
            fields.flag("referrers", default=above.asked),
            fields.flag("fastCheck", default=above.fast),
        )


def _referrer_filter(fields: Fields) -> ReferrerFilter:
    fields.only("artifactType", "annotations")
    return ReferrerFilter(fields.text("artifactType"), fields.pairs("annotations"))


def _refuse_commands(fields: Fields) -> None:
    """A file of rules that runs programs is more than it says it is; what has happened is in the report."""
    if "hooks" in fields.items:
        raise InvalidInput(f"{fields.failing('hooks')}: no commands are run: take it out, and act on --report")


def _due(fields: Fields) -> str:
    interval_s = fields.seconds("interval")
    return fields.text("schedule") or (f"@every {interval_s:g}s" if interval_s else "")


def _rule(entry: Fields, common: _Shared, render: Render, here: Platform) -> Rule:
    _refuse_commands(entry)
    entry.only(*_ENTRY)
    kind = _kind(entry)
    repositories = _selection(entry.mapping("repos"), ranges=False)
    selections = [_selection(one) for one in entry.mappings("tagSets")]
    if "tags" in entry.items:
        selections.append(_selection(entry.mapping("tags")))
    platforms = [*entry.texts("platforms"), *filter(None, [entry.text("platform")])]
    shared = _Shared.read(entry, common)
    return Rule(
        kind,
        _address(entry, "source", render),
        _address(entry, "target", render),
        selections=tuple(selections),
        repositories=repositories,
        platforms=tuple(Platform.parse(text, here) for text in platforms),
        companions=shared.companions,
        referrers=shared.referrers,
        referrer_filters=shared.filters,
        recheck=shared.asked and not shared.fast,
        media_types=shared.media_types,
        always=shared.always,
        backup=shared.backup,
        floor=shared.floor,
        due=shared.due,
    )


def _kind(entry: Fields) -> Kind:
    match entry.text("type"):
        case "registry" | "repository" | "image" as kind:
            return kind
        case other:
            raise InvalidInput(f"{entry.failing('type')} is {other!r}: write registry, repository or image")


def _selection(fields: Fields, *, ranges: bool = True) -> Selection:
    fields.only("allow", "deny", *(["semverRange"] if ranges else []))
    return Selection(
        tuple(map(pattern, fields.texts("allow"))),
        tuple(map(pattern, fields.texts("deny"))),
        tuple(map(Range, fields.texts("semverRange"))) if ranges else (),
    )


def _address(entry: Fields, key: str, render: Render) -> str:
    text = _expanded(entry, key, render).strip()
    if not text:
        raise InvalidInput(f"{entry.failing(key)} is missing: every entry has a source and a target")
    if text.startswith(_OCI_DIRECTORY):
        return f"oci:{text.removeprefix(_OCI_DIRECTORY)}"
    if re.match(r"\w+://", text):
        raise InvalidInput(f"{entry.failing(key)}: {text[:200]!r} is neither a registry's name nor ocidir://PATH")
    return f"docker://{text}"


def _expanded(fields: Fields, key: str, render: Render) -> str:
    try:
        return render(fields.text(key))
    except InvalidInput as error:
        raise InvalidInput(f"{fields.failing(key)}: {error}") from error


def _access(entry: Fields, render: Render) -> tuple[str, Access]:
    entry.only(*_CREDENTIAL)
    tls = entry.text("tls", "enabled")
    if tls not in {"enabled", "insecure", "disabled"}:
        raise InvalidInput(f"{entry.failing('tls')} is {tls!r}: write enabled, insecure or disabled")
    host = _expanded(entry, "registry", render).strip()
    if not host:
        raise InvalidInput(f"{entry.failing('registry')} is missing")
    return host, Access(
        _expanded(entry, "user", render),
        _expanded(entry, "pass", render),
        _expanded(entry, "token", render),
        insecure=tls != "enabled",
        certificates=_expanded(entry, "regcert", render),
    )
