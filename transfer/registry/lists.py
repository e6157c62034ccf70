"""Tags of a repository, and repositories of a registry, page by page.

Spec: distribution-spec v1.1, "Listing Tags"; Docker Registry HTTP API v2, "Catalog".
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from image.errors import RegistryError
from transfer.registry import wire
from transfer.registry.session import Session, Verb
from transfer.registry.wire import Request

_PAGE: Final = 1000
"""Names to ask for at once; the most that every registry takes."""
_MAX_PAGES: Final = 1000
_MAX_PAGE_SIZE: Final = 16 << 20
_MAX_NAMES: Final = 1_000_000
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")


class Lists(Session):
    """Follows what a registry says of the next page, or counts on where it says nothing."""

    def tags(self) -> list[str]:
        """Every tag, in the registry's order. Raises ReferenceNotFound when there is no such repository."""
        return self._names(
            wire.tags_url(self._base(), self.path, page=_PAGE), "tags", "list tags of", _TAG, self._scopes
        )

    def catalog(self) -> list[str]:
        """The paths of all repositories of the registry, as far as it tells. Raises RegistryError."""
        url = wire.catalog_url(self._base(), page=_PAGE)
        return self._names(url, "repositories", "list repositories of", _REPOSITORY, (wire.CATALOG_SCOPE,))

    def _names(self, url: str, key: str, verb: Verb, wanted: re.Pattern[str], scopes: tuple[str, ...]) -> list[str]:
        """All names, without those that are no names. Raises RegistryError when the pages never end."""
        found: dict[str, None] = {}
        asked: set[str] = set()
        following: str | None = url
        while following is not None:
            if following in asked or len(asked) >= _MAX_PAGES or len(found) > _MAX_NAMES:
                raise RegistryError(f"{verb} {self.name}: the registry's pages never end", url=wire.redact(url))
            asked.add(following)
            document, following = self._page(following, verb, scopes)
            page = document.get(key) or []
            names = [name for name in page if isinstance(name, str)] if isinstance(page, list) else []
            known = len(found)
            found.update(dict.fromkeys(name for name in names if wanted.fullmatch(name)))
            following = following or _named_next(url, document, names, more=len(found) > known)
        return list(found)

    def _page(self, url: str, verb: Verb, scopes: tuple[str, ...]) -> tuple[dict[str, Any], str | None]:
        def get() -> tuple[bytes, str | None]:
            with self._send(Request("GET", url), scopes) as reply:
                if reply.status != 200:
                    raise self._refusal(reply, verb=verb)
                return reply.read(_MAX_PAGE_SIZE), wire.next_page(reply.url, reply.headers)

        body, following = self._repeat(get)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{verb} {self.name}: the reply is not JSON", url=wire.redact(url)) from error
        if not isinstance(document, dict):
            raise RegistryError(f"{verb} {self.name}: the reply is not a JSON object", url=wire.redact(url))
        return document, following


def _named_next(url: str, document: dict[str, Any], names: list[str], *, more: bool) -> str | None:
    """The next page where no link leads there: by a token in the document, or after the last name of a full page."""
    token = document.get("next_page")
    if isinstance(token, str) and token:
        return wire.with_query(url, next_page=token)
    return wire.with_query(url, last=names[-1]) if more and len(names) == _PAGE else None
