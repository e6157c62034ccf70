"""In which repositories blobs are known to be, so that a registry can mount them into another one.

A file in the root, of SQLite's, that any number of processes share. It is a memory and no record: what it
says is asked of the registry before it is believed, what is forgotten costs an upload, and a file that
can't be used is as good as none. It holds names of repositories and digests, and the newest
``_MOST`` of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image.digest import Digest

if TYPE_CHECKING:
    import sqlite3

_MOST: Final = 50_000
"""Rows that are kept: some 10 MB."""
_MOST_UNWRITTEN: Final = 5_000
_OFFERED: Final = 2
"""Repositories to try for one blob."""
_BUSY_S: Final = 0.5
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS blobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL, digest TEXT NOT NULL, path TEXT NOT NULL,
    UNIQUE (host, digest, path) ON CONFLICT REPLACE
)
"""


class KnownBlobs:
    """What this process has seen, and what others have written to ``file``. Written at the end; close it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._usable = True
        self._new: dict[tuple[str, str], dict[str, None]] = {}
        self._gone: set[tuple[str, str, str]] = set()

    def add(self, host: str, path: str, digests: Iterable[Digest]) -> None:
        """The repository ``path`` at ``host`` has these blobs."""
        with self._lock:
            for digest in digests:
                self._new.setdefault((host, str(digest)), {})[path] = None
            if len(self._new) > _MOST_UNWRITTEN:
                self._write()

    def forget(self, host: str, path: str, digest: Digest) -> None:
        """It did not have the blob after all."""
        with self._lock:
            self._new.get((host, str(digest)), {}).pop(path, None)
            self._gone.add((host, str(digest), path))

    def places(self, host: str, digest: Digest, *, but: str) -> tuple[str, ...]:
        """Repositories at ``host``, other than ``but``, that may have a blob: the last ones first, a few."""
        with self._lock:
            here = reversed(self._new.get((host, str(digest)), {}))
            written = (path for path in self._written(host, str(digest)) if (host, str(digest), path) not in self._gone)
            return tuple(path for path in dict.fromkeys([*here, *written]) if path != but)[:_OFFERED]

    def _written(self, host: str, digest: str) -> list[str]:
        database = self._opened(make=False)
        if database is None:
            return []
        query = "SELECT path FROM blobs WHERE host = ? AND digest = ? ORDER BY number DESC LIMIT ?"
        try:
            return [path for (path,) in database.execute(query, (host, digest, _OFFERED + 1))]
        except _errors():
            self._give_up()
            return []

    def _opened(self, *, make: bool) -> sqlite3.Connection | None:
        if self._database is not None or not self._usable or not (make or self._file.exists()):
            return self._database
        import sqlite3

        try:
            if make:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # names may be secret
            self._database = sqlite3.connect(self._file, timeout=_BUSY_S, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(_TABLE)
        except sqlite3.OperationalError:
            self._give_up()
        except (OSError, sqlite3.Error):  # no database at all: the next process makes a new one
            self._give_up()
            with suppress(OSError):
                self._file.unlink()
        return self._database

    def _give_up(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._usable = False

    def close(self) -> None:
        """Write what is new. What can't be written is not remembered."""
        with self._lock:
            if self._new or self._gone:
                self._write()
            self._give_up()

    def _write(self) -> None:
        rows = [(host, digest, path) for (host, digest), paths in self._new.items() for path in paths]
        database = self._opened(make=True)
        if database is not None:
            with suppress(*_errors()), database:
                database.executemany("DELETE FROM blobs WHERE host = ? AND digest = ? AND path = ?", self._gone)
                database.executemany("INSERT INTO blobs (host, digest, path) VALUES (?, ?, ?)", rows)
                database.execute("DELETE FROM blobs WHERE number <= (SELECT max(number) FROM blobs) - ?", (_MOST,))
        self._new.clear()
        self._gone.clear()


def _errors() -> tuple[type[Exception], ...]:
    import sqlite3

    return (sqlite3.Error,)
