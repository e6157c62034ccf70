"""``inspect`` of an image that is not in the store: ``docker://``, ``oci:`` and the other transports."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tierce.cli.command import Settings, binary
from tierce.cli.output import echo
from tierce.cli.transfer import docker_engine, open_registries

if TYPE_CHECKING:
    from pathlib import Path

    from image.platform import Platform
    from transfer.ports import Source
    from transfer.registries import Registries

_PATHS: Final = ("oci:", "oci-archive:", "docker-archive:", "dir:", "store:")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def is_elsewhere(word: str) -> bool:
    """Whether a word names an image with a transport: ``dir:1`` is an image of the store, ``dir:/1`` is not."""
    if word.startswith(("docker://", "docker-daemon:")):
        return True
    return any(word.startswith(prefix) and not _TAG.fullmatch(word[len(prefix) :]) for prefix in _PATHS)


def inspect_elsewhere(
    settings: Settings, word: str, platform: Platform | None, registry_flags: Mapping[str, Any],
    *, raw: bool, config: bool, tags: bool, form: str, daemon_host: str | None,
    shared_blobs: Path | None,
) -> None:  # fmt: skip
    """Print skopeo's summary of an image; with ``raw`` its exact manifest, with ``config`` its configuration."""
    from tierce.host_platform import host_platform
    from transfer.inspection import look, raw_config, summary
    from transfer.transports.address import Places, open_source

    with ExitStack() as stack:
        registries = stack.enter_context(open_registries(settings, **registry_flags))
        store = cache(lambda: stack.enter_context(settings.store()))
        engine = docker_engine(settings, daemon_host)
        places = Places(store, registries, engine=engine, shared_blobs=shared_blobs)
        source = stack.enter_context(open_source(word, places))
        if raw and not config:
            root = source.root()
            return _write(source.manifest(root).raw)
        found = look(source, platform or host_platform())
        if raw:
            return _write(raw_config(source, found))
        if config:
            document = json.loads(raw_config(source, found))
        else:
            listed = _tags(source, registries) if tags else None
            document = summary(source, found, listed, source.repository.repository if source.repository else "")
    echo(_shown(document, form))
    return None


def _tags(source: Source, registries: Registries) -> list[str]:
    """The tags beside an image in its registry. One that does not tell them is no failure."""
    from image.errors import NotFound, RegistryError

    if source.repository is None:
        return []
    try:
        return registries.repository(source.repository).tags()
    except (RegistryError, NotFound) as error:
        echo(f"tierce: {error} (--no-tags does not ask)", err=True)
        return []


def _shown(document: dict[str, Any], form: str) -> str:
    """Indented as skopeo does, or through a template."""
    from tierce.cli.tables import render_documents

    if form in {"", "json"}:
        return json.dumps(document, indent=4 if not form else None, ensure_ascii=False)
    return render_documents([document], form).removesuffix("\n")


def _write(data: bytes) -> None:
    binary(sys.stdout).write(data)
