"""What the store knows, in SQLite: names, images, unpacked layers, build cache, leases.

What SQLite names is on disk; what is on disk and not named here is garbage (``store.gc``).
What transactions promise is said in ``store.database``, what is needed by what is asked in ``store.uses``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from image.descriptor import Descriptor
from image.digest import ChainID, DiffID, Digest
from image.value import dataclass
from store.database import Database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_MOST_VALUES: Final = 10_000  # SQLite takes 32,766 in one statement


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image the user has. ``target`` is its manifest or index; ``size`` counts its blobs."""

    target: Descriptor
    names: tuple[str, ...]
    config: str
    """Digest of the config, which is the image id that docker shows; the index's own for an index."""
    platform: str
    created: str
    added_s: float
    size: int


@dataclass(frozen=True, slots=True)
class NameRecord:
    """What a name stands for. ``source`` is the digest it had at the registry, or ""."""

    name: str
    target: Descriptor
    source: str
    updated_s: float


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer of an image: its place in a stack, its content, its blob."""

    chain_id: ChainID
    diff_id: DiffID
    digest: Digest


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """An unpacked layer. ``directory`` is its name in ``overlay2/``; ``size`` in bytes."""

    chain_id: ChainID
    parent: ChainID | None
    diff_id: DiffID
    directory: str
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """The result of a build step: the layer it made, as the top of a stack.

    A record without layer leads to another key, which is in ``label``. ``created_s`` 0 means now;
    ``took_s`` is how long the step ran.
    """

    key: str
    chain_id: ChainID | None
    diff_id: DiffID | None
    blob: Descriptor | None
    size: int
    label: str
    created_s: float = 0.0
    used_s: float = 0.0
    uses: int = 0
    took_s: float = 0.0


class Metadata(Database):
    """The tables, but for those of containers (``container_rows``)."""

    # Names and images

    def name(self, name: str) -> NameRecord | None:
        rows = self._rows(
            "SELECT n.name, i.media_type, i.digest, i.size, n.source, n.updated"
            " FROM names n JOIN images i ON i.digest = n.image WHERE n.name = ?",
            name,
        )
        return _name(rows[0]) if rows else None

    def names(self) -> list[NameRecord]:
        return [
            _name(row)
            for row in self._rows(
                "SELECT n.name, i.media_type, i.digest, i.size, n.source, n.updated"
                " FROM names n JOIN images i ON i.digest = n.image ORDER BY n.name"
            )
        ]

    def images(self) -> list[ImageRecord]:
        """Every image, newest first."""
        names: dict[str, list[str]] = {}
        for digest, name in self._rows("SELECT image, name FROM names ORDER BY name"):
            names.setdefault(digest, []).append(name)
        rows = self._rows(
            "SELECT i.digest, i.media_type, i.size, i.config, i.platform, i.created, i.added,"
            " (SELECT coalesce(sum(b.size), 0) FROM image_blobs b WHERE b.image = i.digest)"
            " FROM images i ORDER BY i.created DESC, i.added DESC"
        )
        return [
            ImageRecord(
                Descriptor(row[1], Digest(row[0]), int(row[2])), tuple(names.get(row[0], ())),
                row[3], row[4], row[5], float(row[6]), int(row[7]),
            )
            for row in rows
        ]  # fmt: skip

    def has_image(self, image: Digest) -> bool:
        return bool(self._rows("SELECT 1 FROM images WHERE digest = ?", str(image)))

    def add_image(
        self,
        target: Descriptor,
        *,
        config: str,
        platform: str,
        created: str,
        blobs: Iterable[Descriptor],
        layers: Iterable[ImageLayer],
    ) -> None:
        """Record an image whose blobs are all present. Idempotent."""
        digest = str(target.digest)
        with self.transaction():
            self._db.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(digest) DO UPDATE SET added = excluded.added",
                (digest, target.media_type, target.size, config, platform, created, self._clock()),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO image_blobs VALUES (?, ?, ?)",
                [(digest, str(blob.digest), blob.size) for blob in blobs],
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO image_layers VALUES (?, ?, ?, ?)",
                [(digest, str(layer.chain_id), str(layer.diff_id), str(layer.digest)) for layer in layers],
            )

    def set_name(self, name: str, image: Digest, source: str = "") -> None:
        """Let ``name`` stand for a recorded image, whatever it stood for before."""
        self._change(
            "INSERT INTO names VALUES (?, ?, ?, ?) ON CONFLICT(name) DO UPDATE SET"
            " image = excluded.image, source = excluded.source, updated = excluded.updated",
            name, str(image), source, self._clock(),
        )  # fmt: skip

    def remove_name(self, name: str) -> bool:
        return self._change("DELETE FROM names WHERE name = ?", name) > 0

    def remove_image(self, image: Digest) -> bool:
        """Forget an image and its names; its blobs become garbage unless shared."""
        with self.transaction():
            self._db.execute("DELETE FROM names WHERE image = ?", (str(image),))
            return self._db.execute("DELETE FROM images WHERE digest = ?", (str(image),)).rowcount > 0

    def blob_of(self, diff_id: DiffID) -> Digest | None:
        """A blob known to hold this layer, from any image or build step."""
        rows = self._rows(
            "SELECT digest FROM image_layers WHERE diff = ?1 UNION ALL"
            " SELECT digest FROM cache WHERE diff = ?1 AND digest IS NOT NULL LIMIT 1",
            str(diff_id),
        )
        return Digest(rows[0][0]) if rows else None

    # Layers

    def layer(self, chain_id: ChainID) -> LayerRecord | None:
        rows = self._rows(
            "SELECT chain, parent, diff, directory, size, entries FROM layers WHERE chain = ?", str(chain_id)
        )
        return _layer(rows[0]) if rows else None

    def layers(self) -> list[LayerRecord]:
        return [_layer(row) for row in self._rows("SELECT chain, parent, diff, directory, size, entries FROM layers")]

    def layer_stack(self, chain_id: ChainID) -> list[LayerRecord]:
        """The layer and all below it, top first; empty when it is not unpacked."""
        rows = self._rows(
            "WITH RECURSIVE stack(chain, depth) AS (SELECT ?, 0 UNION ALL"
            " SELECT l.parent, depth + 1 FROM layers l JOIN stack s ON l.chain = s.chain WHERE l.parent IS NOT NULL)"
            " SELECT l.chain, l.parent, l.diff, l.directory, l.size, l.entries"
            " FROM stack s JOIN layers l ON l.chain = s.chain ORDER BY depth",
            str(chain_id),
        )
        return [_layer(row) for row in rows]

    def add_layer(self, layer: LayerRecord) -> bool:
        """Record an unpacked layer; False when the chain is there already."""
        parent = str(layer.parent) if layer.parent else None
        changed = self._change(
            "INSERT OR IGNORE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)",
            str(layer.chain_id), parent, str(layer.diff_id), layer.directory, layer.size, layer.entries, self._clock(),
        )  # fmt: skip
        return changed > 0

    def remove_layer(self, chain_id: ChainID) -> None:
        self._change("DELETE FROM layers WHERE chain = ?", str(chain_id))

    # Build cache

    def cached(self, key: str) -> CacheRecord | None:
        rows = self._rows(_CACHED + " WHERE key = ?", key)
        return _cache(rows[0]) if rows else None

    def cache(self) -> list[CacheRecord]:
        return [_cache(row) for row in self._rows(_CACHED + " ORDER BY used DESC")]

    def add_cached(self, record: CacheRecord) -> None:
        blob = record.blob
        now = self._clock()
        self._change(
            "INSERT OR REPLACE INTO cache VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            record.key, str(record.chain_id) if record.chain_id else None,
            str(record.diff_id) if record.diff_id else None,
            str(blob.digest) if blob else None, blob.media_type if blob else None, blob.size if blob else None,
            record.size, record.label, record.created_s or now, now, record.took_s,
        )  # fmt: skip

    def touch_cached(self, keys: Iterable[str]) -> None:
        """Remember that these results served a build."""
        now = self._clock()
        with self.transaction():
            self._db.executemany("UPDATE cache SET used = ?, uses = uses + 1 WHERE key = ?", [(now, k) for k in keys])

    def remove_cached(self, keys: Iterable[str]) -> None:
        with self.transaction():
            self._db.executemany("DELETE FROM cache WHERE key = ?", [(key,) for key in keys])

    # Checksums of files outside the store, by what the file system says of them

    def checksums(self, device: int, inodes: Sequence[int]) -> dict[int, tuple[int, int, int, bytes]]:
        """``inode → (size, mtime_ns, ctime_ns, sha256)`` of those files on ``device`` that are known."""
        found: dict[int, tuple[int, int, int, bytes]] = {}
        for start in range(0, len(inodes), _MOST_VALUES):
            some = inodes[start : start + _MOST_VALUES]
            marks = ",".join("?" * len(some))
            query = f"SELECT inode, size, mtime, ctime, sha256 FROM checksums WHERE device = ? AND inode IN ({marks})"  # noqa: S608 - only marks
            for inode, *known in self._rows(query, device, *some):
                found[inode] = (known[0], known[1], known[2], known[3])
        return found

    def add_checksums(self, rows: Iterable[tuple[int, int, int, int, int, bytes]]) -> None:
        """``(device, inode, size, mtime_ns, ctime_ns, sha256)``, replacing what was known."""
        with self.transaction():
            self._db.executemany("INSERT OR REPLACE INTO checksums VALUES (?, ?, ?, ?, ?, ?)", rows)

    def selection(self, key: str) -> tuple[str, str] | None:
        """``(fingerprint, checksum)`` of a selection of files when it was last looked at."""
        rows = self._rows("SELECT fingerprint, checksum FROM selections WHERE key = ?", key)
        return (rows[0][0], rows[0][1]) if rows else None

    def set_selection(self, key: str, fingerprint: str, checksum: str) -> None:
        self._change("INSERT OR REPLACE INTO selections VALUES (?, ?, ?)", key, fingerprint, checksum)

    def built(self, key: str) -> tuple[str, str] | None:
        """``(state, answer)`` of the build that was last asked for in these words."""
        rows = self._rows("SELECT state, answer FROM builds WHERE key = ?", key)
        return (rows[0][0], rows[0][1]) if rows else None

    def set_built(self, key: str, state: str, answer: str) -> None:
        self._change("INSERT OR REPLACE INTO builds VALUES (?, ?, ?)", key, state, answer)

    # Leases: what running processes use and nothing else names yet

    def lease(self, lease: str, kind: str, value: str) -> None:
        self._change("INSERT OR IGNORE INTO leases VALUES (?, ?, ?)", lease, kind, value)

    def leased(self, kind: str) -> set[str]:
        return {row[0] for row in self._rows("SELECT value FROM leases WHERE kind = ?", kind)}

    def lease_holdings(self, lease: str, kind: str) -> set[str]:
        return {row[0] for row in self._rows("SELECT value FROM leases WHERE lease = ? AND kind = ?", lease, kind)}

    def release(self, lease: str) -> None:
        self._change("DELETE FROM leases WHERE lease = ?", lease)

    def lease_owners(self) -> set[str]:
        return {row[0] for row in self._rows("SELECT DISTINCT lease FROM leases")}

    def next_generation(self) -> int:
        """A number that grows with every change of names."""
        with self.transaction():
            self._db.execute("UPDATE counters SET value = value + 1 WHERE name = 'generation'")
            return self.generation()

    def generation(self) -> int:
        """How often names changed."""
        return int(self._rows("SELECT value FROM counters WHERE name = 'generation'")[0][0])


_CACHED: Final = (
    "SELECT key, chain, diff, digest, media_type, blob_size, size, label, created, used, uses, took FROM cache"
)


def _name(row: tuple[Any, ...]) -> NameRecord:
    name, media_type, digest, size, source, updated = row
    return NameRecord(name, Descriptor(media_type, Digest(digest), int(size)), source, float(updated))


def _layer(row: tuple[Any, ...]) -> LayerRecord:
    chain, parent, diff, directory, size, entries = row
    return LayerRecord(
        ChainID(chain), ChainID(parent) if parent else None, DiffID(diff), directory, int(size), int(entries)
    )


def _cache(row: tuple[Any, ...]) -> CacheRecord:
    key, chain, diff, digest, media_type, blob_size, size, label, created, used, uses, took = row
    return CacheRecord(
        key,
        ChainID(chain) if chain else None,
        DiffID(diff) if diff else None,
        Descriptor(media_type, Digest(digest), int(blob_size)) if digest else None,
        int(size),
        label,
        float(created),
        float(used),
        int(uses),
        float(took),
    )
