"""The store's database: one connection, its tables, and transactions.

Every visible change is one transaction, so readers see the old state or the new one.
SQLite's write lock is also the lock of the garbage collector: nothing can be put to use
while unused things are chosen. It is never held across a download or a RUN.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from image.bare import sqlite
from image.errors import StorageError
from image.paths import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_VERSION: Final = 2
_FULL: Final = "no space left on device"
_NEEDED: Final = 128 << 10
"""Bytes of disk without which SQLite can't make its files."""
_BUSY_TIMEOUT_S: Final = 60.0
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


_LEFT_OPEN: Final[list[sqlite.Connection]] = []


class Database:
    """One connection, used by any thread of the process."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._depth = 0
        self._before_commit: list[Callable[[], None]] = []
        self.path = path
        try:
            self._db = sqlite.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._prepare()
        except sqlite.Error as error:
            said = _said(error, path)
            advice = "" if said.startswith(_FULL) else ": is the root a Tierce store, and yours?"
            raise StorageError(f"open {path}: {said}{advice}") from error

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
            except sqlite.OperationalError:
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
            except sqlite.Error as error:
                raise StorageError(f"write {self.path}: {_said(error, self.path)}") from error
            finally:
                self._depth = 0
                self._before_commit.clear()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite.Error as error:
                raise StorageError(f"read {self.path}: {_said(error, self.path)}") from error

    def _change(self, statement: str, *values: object) -> int:
        with self.transaction():
            return self._db.execute(statement, values).rowcount

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with its own file."""
        return [row[0] for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]


def _said(error: sqlite.Error, path: Path) -> str:
    """SQLite's words, or what to do when the disk is full: without room for its files SQLite speaks of I/O alone."""
    kind = getattr(error, "sqlite_errorname", "")
    with suppress(OSError):
        free = os.statvfs(path.parent)
        is_full = free.f_bavail * free.f_frsize < _NEEDED and kind.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))
        if is_full or kind == "SQLITE_FULL":
            return f"{_FULL}: free space there, or choose another root with --root"
    return str(error)
