"""The rows of containers in the store's database: what they are, and what they keep from the collector.

What a container is (``document``) and how it goes (``state``) are the runner's texts; here
they are rows that change as one transaction. A container holds the layers and blobs that it
was made of, and its own writable directory, like a session that outlives its process.
"""

from __future__ import annotations

from collections.abc import Iterable

from image.bare import sqlite
from image.errors import Conflict, ContainerNotFound, NameInUse
from image.value import dataclass
from store.metadata import Metadata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_COLUMNS: Final = "id, name, image, created, document, state"


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One container. ``image`` is the digest of its manifest; ``created_s`` since 1970."""

    id: str
    name: str
    image: str
    created_s: float
    document: str
    state: str


class ContainerRows:
    """The table ``containers``."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def add(self, row: ContainerRow, holds: Iterable[tuple[str, str]]) -> None:
        """With what it keeps: pairs of kind (``chain``, ``blob``, ``directory``) and value. Raises NameInUse."""
        with self._metadata.transaction():
            other = self._metadata._rows("SELECT id FROM containers WHERE name = ?", row.name)
            if other:
                raise NameInUse(
                    f'the container name "/{row.name}" is already in use by container "{other[0][0]}": '
                    "remove or rename that container to be able to reuse the name"
                )
            values = (row.id, row.name, row.image, row.created_s, row.document, row.state)
            self._metadata._change("INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?)", *values)
            for kind, value in holds:
                self._metadata.lease(_owner(row.id), kind, value)

    def all(self) -> list[ContainerRow]:
        """Every container, newest first."""
        query = f"SELECT {_COLUMNS} FROM containers ORDER BY created DESC, id"  # noqa: S608  (our own words)
        return [ContainerRow(*row) for row in self._metadata._rows(query)]

    def get(self, word: str) -> ContainerRow:
        """By id, name or the first digits of an id. Raises ContainerNotFound; Conflict when several begin so."""
        name = word.removeprefix("/")
        for condition, value in (("id = ?", word), ("name = ?", name), ("id GLOB ?", f"{_plain(word)}*")):
            found = self._select(condition, value) if value != "*" else []
            if len(found) > 1:
                raise Conflict(f"container id {word} is ambiguous: {len(found)} containers begin so")
            if found:
                return found[0]
        raise ContainerNotFound(f"no such container: {word[:300]}")

    def _select(self, condition: str, value: str) -> list[ContainerRow]:
        query = f"SELECT {_COLUMNS} FROM containers WHERE {condition}"  # noqa: S608  (our own words)
        return [ContainerRow(*row) for row in self._metadata._rows(query, value)]

    def set_state(self, container_id: str, state: str) -> bool:
        """False when the container is gone."""
        return self._metadata._change("UPDATE containers SET state = ? WHERE id = ?", state, container_id) > 0

    def change_state(self, container_id: str, known: str, state: str) -> bool:
        """False when the state is not the known one any more, or the container gone."""
        change = "UPDATE containers SET state = ? WHERE id = ? AND state = ?"
        return self._metadata._change(change, state, container_id, known) > 0

    def set_document(self, container_id: str, document: str) -> bool:
        """False when the container is gone."""
        return self._metadata._change("UPDATE containers SET document = ? WHERE id = ?", document, container_id) > 0

    def rename(self, container_id: str, name: str) -> None:
        """Raises NameInUse."""
        try:
            with self._metadata.transaction():
                self._metadata._db.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container_id))
        except Exception as error:
            if isinstance(error.__cause__, sqlite.IntegrityError):
                raise NameInUse(f'the container name "/{name}" is already in use') from error
            raise

    def remove(self, container_id: str) -> None:
        """Forget it; what it held is garbage from now on. Idempotent."""
        with self._metadata.transaction():
            self._metadata._change("DELETE FROM containers WHERE id = ?", container_id)
            self._metadata.release(_owner(container_id))

    def using(self, image: str) -> list[ContainerRow]:
        """Containers that were made of this manifest."""
        return self._select("image = ?", image)


def owners(metadata: Metadata) -> set[str]:
    """Under which names containers hold things, for the checker."""
    return {_owner(row.id) for row in ContainerRows(metadata).all()}


def _owner(container_id: str) -> str:
    return f"container-{container_id}"


def _plain(word: str) -> str:
    """Only hexadecimal digits can begin an id; anything else finds nothing."""
    return word if word and set(word) <= set("0123456789abcdef") else "" if not word else "-"
