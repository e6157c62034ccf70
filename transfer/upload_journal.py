"""Uploads that another process may go on with: a small file for each, as long as it is under way.

A note says which blob goes to which repository, where the registry waits for it, and how
much has arrived; nothing that would open the registry to anybody. Who uses a note keeps its
file locked, so that two processes never send to one upload. Notes that are too old are
removed: registries forget uploads too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from image.digest import Digest
from transfer.registry.client import Upload

_MAX_AGE_S: Final = 24 * 3600.0
_MAX_SIZE: Final = 64 << 10


class UploadJournal:
    """Notes in a directory, which is made when it is first needed. ``clock`` gives seconds since 1970."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    @contextmanager
    def note(self, repository: str, digest: Digest) -> Iterator[Note | None]:
        """The note of a blob's upload, for this process alone while the block lasts.

        None where another process has it, or where nothing can be written: then an upload is
        just not remembered.
        """
        fd = self._open(hashlib.sha256(f"{repository}\0{digest}".encode()).hexdigest())
        if fd is None:
            yield None
            return
        try:
            yield Note(fd, f"{repository}@{digest}", self._clock)
        finally:
            os.close(fd)

    def _open(self, name: str) -> int | None:
        path = self._directory / name
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return None
            return fd
        return None

    def _sweep(self) -> None:
        """Remove notes that nobody uses and that are too old, or empty."""
        for entry in os.scandir(self._directory):
            with suppress(OSError):
                fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    told = os.fstat(fd)
                    if self._clock() - told.st_mtime > _MAX_AGE_S or not told.st_size:
                        os.unlink(entry.path)
                finally:
                    os.close(fd)


class Note:
    """One upload's file, open and locked."""

    def __init__(self, fd: int, what: str, clock: Callable[[], float]) -> None:
        self._fd = fd
        self._what = what
        self._clock = clock

    def read(self) -> Upload | None:
        """How the upload stood when it was last heard of; None when there is none, or none to be relied on."""
        try:
            document = json.loads(os.pread(self._fd, _MAX_SIZE, 0))
            upload = Upload(str(document["location"]), int(document["offset"]), int(document["chunk_minimum"]))
            fresh = 0 <= self._clock() - float(document["time"]) <= _MAX_AGE_S
            return upload if fresh and document["what"] == self._what and upload.offset >= 0 else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, upload: Upload) -> None:
        """Write down how the upload stands. A location with a password in it is not written down."""
        if urlsplit(upload.location).password:
            return
        document = {
            "what": self._what,
            "location": upload.location,
            "offset": upload.offset,
            "chunk_minimum": upload.chunk_minimum,
            "time": self._clock(),
        }
        raw = json.dumps(document).encode()
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, raw, 0)

    def forget(self) -> None:
        """The upload has ended; the empty file goes with the next sweep."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
