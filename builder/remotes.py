"""Downloads and git repositories of one build: asked first, fetched only when a step needs them.

Asking costs a round trip and moves no content: has the file changed, which commit is the
branch at? All are asked at once, before the cache is probed. So an unchanged URL downloads
nothing, and an unchanged branch fetches nothing.

Spec: dockerfile.md 1.5 (ADD URL, ADD git), 4 (keys).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final, TypeVar

from builder.context import Context
from builder.graph import FromGit, FromUrl, Step, inputs_first
from builder.ports import Downloads, Repositories
from builder.results import Checkout, Download
from builder.tree import FileTree, Tree
from image.descriptor import Descriptor
from image.errors import InvalidInput
from store.content import ContentStore

_MODE: Final = 0o600
_AT_ONCE: Final = 8
_BLOCK: Final = 1 << 20
SIGNAL_PAUSE_S: Final = 0.2
"""A main thread waits no longer than this in one piece: a signal that comes just before Python goes
to wait is only seen when it wakes, so waiting without an end could make a build deaf to Ctrl-C."""
_Port = TypeVar("_Port", Downloads, Repositories)


class RemoteSources:
    """What source steps of the network came to. ``pending`` are the ids of those still to be fetched."""

    def __init__(self, content: ContentStore, downloads: Downloads | None, repositories: Repositories | None) -> None:
        self._content = content
        self._downloads = downloads
        self._repositories = repositories
        self._answers: dict[str, Future[Download | Checkout | None]] = {}
        self._lock = threading.Lock()
        self._verified: set[str] = set()
        self.pending: set[str] = set()

    def ask(self, target: Step) -> None:
        """Ask about everything that ``target`` needs, at once. Errors are kept for ``known``."""
        steps = [step for step in inputs_first(target) if isinstance(step.operation, FromUrl | FromGit)]
        if not steps:
            return
        with ThreadPoolExecutor(_AT_ONCE, "ask") as pool:
            try:
                self._answers = {step.id: pool.submit(self._ask, step.operation) for step in steps}
                while wait(self._answers.values(), timeout=SIGNAL_PAUSE_S).not_done:
                    pass
            except BaseException:
                self.abort()
                raise
        self.pending = {
            name for name, answer in self._answers.items() if not answer.exception() and not answer.result()
        }

    def known(self, step: Step) -> Download | Checkout | None:
        """What asking found; None for what must be fetched. Raises what asking raised."""
        return self._answers[step.id].result()

    def fetch(self, step: Step) -> Download:
        """Download a file that has changed or is new. Raises RegistryError, DigestMismatch."""
        operation = step.operation
        assert isinstance(operation, FromUrl)
        file = _given(self._downloads).fetch(operation.source.url, operation.checksum)
        found: Future[Download | Checkout | None] = Future()
        download = Download(operation.source.name, file)
        found.set_result(download)
        with self._lock:
            self._answers[step.id] = found
            self._verified.add(str(file.blob.digest))
            self.pending.discard(step.id)
        return download

    @contextmanager
    def open(self, source: Download | Checkout) -> Iterator[Tree]:
        """The files of a source. A commit is fetched and checked out by now. Raises RegistryError."""
        match source:
            case Download():
                blob = source.file.blob
                self._verify(blob)
                with FileTree.open(
                    self._content.path(blob.digest), source.name, mode=_MODE, mtime_s=source.file.modified_s
                ) as tree:
                    yield tree
            case Checkout():
                repositories = _given(self._repositories)
                with Context(repositories.check_out(source.source, source.commit)).open() as tree:
                    yield tree

    def _verify(self, blob: Descriptor) -> None:
        """What an earlier build downloaded is read once before it is used. Raises DigestMismatch."""
        if str(blob.digest) not in self._verified:
            with self._content.open(blob) as stored:
                while stored.read(_BLOCK):
                    pass
            self._verified.add(str(blob.digest))

    def abort(self) -> None:
        """Wake every thread that waits for the network."""
        for port in (self._downloads, self._repositories):
            if port is not None:
                port.abort()

    def _ask(self, operation: object) -> Download | Checkout | None:
        if isinstance(operation, FromUrl):
            file = _given(self._downloads).known(operation.source.url, operation.checksum)
            return None if file is None else Download(operation.source.name, file)
        assert isinstance(operation, FromGit)
        repositories = _given(self._repositories)
        return Checkout(operation.source, repositories.commit(operation.source))


def _given(port: _Port | None) -> _Port:
    if port is None:
        raise InvalidInput("this build has no way to the network: ADD takes local files only")
    return port
