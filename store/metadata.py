"""What the store knows, in SQLite: names, images, unpacked layers, build cache, leases.

Every visible change is one transaction, so readers see the old state or the new one. What
SQLite names is on disk; what is on disk and not named here is garbage (``store.gc``).
SQLite's write lock is also the lock of the garbage collector: nothing can be put to use
while unused things are chosen. It is never held across a download or a RUN.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from image.descriptor import Descriptor
from image.digest import ChainID, DiffID, Digest
from image.errors import StorageError
from image.value import dataclass

_VERSION: Final = 2
_BUSY_TIMEOUT_S: Final = 60.0
_MOST_VALUES: Final = 10_000  # SQLite takes 32,766 in one statement
_SCHEMA: Final = """
CREATE TABLE images (
    digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    config TEXT NOT NULL, platform TEXT NOT NULL, created TEXT NOT NULL, added REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE names (
    name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(digest),
    source TEXT NOT NULL, updated REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE image_blobs (
    image TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE,
    digest TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (image, digest)
) WITHOUT ROWID;
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE,
    chain TEXT NOT NULL, diff TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (image, chain)
) WITHOUT ROWID;
CREATE INDEX image_layers_by_diff ON image_layers(diff);
CREATE TABLE layers (
    chain TEXT PRIMARY KEY, parent TEXT REFERENCES layers(chain), diff TEXT NOT NULL,
    directory TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, entries INTEGER NOT NULL, added REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE cache (
    key TEXT PRIMARY KEY, chain TEXT, diff TEXT, digest TEXT, media_type TEXT, blob_size INTEGER,
    size INTEGER NOT NULL, label TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL,
    took REAL NOT NULL, uses INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE checksums (
    device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER, sha256 BLOB NOT NULL,
    PRIMARY KEY (device, inode)
) WITHOUT ROWID;
CREATE TABLE selections (key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE builds (key TEXT PRIMARY KEY, state TEXT NOT NULL, answer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (
    lease TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (lease, kind, value)
) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('generation', 0);
"""


_CONTAINERS: Final = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image TEXT NOT NULL, created REAL NOT NULL,
    document TEXT NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID
"""
"""Since version 2; a store of version 1 gets it when it is opened."""


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


_LEFT_OPEN: Final[list[sqlite3.Connection]] = []


class Metadata:
    """One connection, used by any thread of the process."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._depth = 0
        self._before_commit: list[Callable[[], None]] = []
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._prepare()
        except sqlite3.Error as error:
            raise StorageError(f"open {path}: {error}: is the root a Tierce store, and yours?") from error

    def close(self) -> None:
        with self._lock:
            if self._db not in _LEFT_OPEN:
                self._db.close()

    def leave_open(self) -> None:
        """From here on ``close`` does nothing, and the end of the process is the end of the connection.

        The last one that closes flushes the log of changes into the database and waits for the
        disk, twice. Where nothing was written that somebody would miss after a power cut, that is
        left to another command; a kill loses nothing either way.
        """
        _LEFT_OPEN.append(self._db)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if self._db.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
            return
        self._switch_to_wal()
        with self.transaction():
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
            if found in (0, 1):
                self._db.execute(_CONTAINERS)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif found != _VERSION:
                raise StorageError(f"open {self.path}: store version {found} needs another version of Tierce")

    def _switch_to_wal(self) -> None:
        """Two processes may create the store at once; the switch ignores the busy timeout."""
        deadline = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def transaction(self, before_commit: Callable[[], None] | None = None) -> Iterator[None]:
        """All changes inside become visible together, or none. Nests.

        ``before_commit`` runs with the changes made and the write lock still held: once, at the
        end of the outermost transaction, however often inner ones ask for the same.
        Raises StorageError when the database can't be written.
        """
        with self._lock:
            if before_commit is not None and before_commit not in self._before_commit:
                self._before_commit.append(before_commit)
            if self._depth:
                yield
                return
            self._depth = 1
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    for prepare in self._before_commit:
                        prepare()
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # SQLite itself rolls back when the disk is full
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StorageError(f"write {self.path}: {error}") from error
            finally:
                self._depth = 0
                self._before_commit.clear()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StorageError(f"read {self.path}: {error}") from error

    def _change(self, statement: str, *values: object) -> int:
        with self.transaction():
            return self._db.execute(statement, values).rowcount

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

    def unpacked_sizes(self) -> dict[str, int]:
        """Manifest digest to the bytes of all its layers' files, for images that are unpacked whole."""
        rows = self._rows(
            "SELECT i.image, sum(l.size) FROM image_layers i LEFT JOIN layers l ON l.chain = i.chain"
            " GROUP BY i.image HAVING count(*) = count(l.chain)"
        )
        return {str(image): int(size) for image, size in rows}

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

    # For the garbage collector and the checker

    def used_blobs(self) -> set[str]:
        """Digests that an image, a cached step or a lease needs."""
        return {
            row[0]
            for row in self._rows(
                "SELECT digest FROM image_blobs UNION SELECT digest FROM images"
                " UNION SELECT digest FROM cache WHERE digest IS NOT NULL"
                " UNION SELECT value FROM leases WHERE kind = 'blob'"
            )
        }

    def used_chains(self) -> set[str]:
        """Chain ids that an image, a cached step or a lease names."""
        return {
            row[0]
            for row in self._rows(
                "SELECT chain FROM image_layers UNION SELECT chain FROM cache WHERE chain IS NOT NULL"
                " UNION SELECT value FROM leases WHERE kind = 'chain'"
            )
        }

    def needed_by_images(self) -> set[str]:
        """Digests and chain ids that an image names, whatever else does."""
        return {
            row[0]
            for row in self._rows(
                "SELECT digest FROM image_blobs UNION SELECT digest FROM images UNION SELECT chain FROM image_layers"
            )
        }

    def next_generation(self) -> int:
        """A number that grows with every change of names."""
        with self.transaction():
            self._db.execute("UPDATE counters SET value = value + 1 WHERE name = 'generation'")
            return self.generation()

    def generation(self) -> int:
        """How often names changed."""
        return int(self._rows("SELECT value FROM counters WHERE name = 'generation'")[0][0])

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with its own file."""
        return [row[0] for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]


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


def database_files(path: Path) -> tuple[Path, ...]:
    """The database and the two files that WAL mode keeps beside it."""
    return (path, Path(f"{os.fspath(path)}-wal"), Path(f"{os.fspath(path)}-shm"))
