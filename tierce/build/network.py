"""A build's way to web servers and repositories, which most builds never go.

Implements ``builder.ports.Downloads`` and ``Repositories`` by what is imported when it is first
needed: HTTP and subprocesses would double the start of a build that is served from the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from builder.dockerfile.remotes import GitSource
from builder.ports import Downloaded
from image.digest import Digest
from image.errors import Cancelled
from store.store import Session

if TYPE_CHECKING:
    from types import TracebackType

    from tierce.build.downloads import StoredDownloads
    from tierce.build.repositories import StoredRepositories


class Network:
    """Downloads and repositories of one build; ``session`` holds what they give. A context manager.

    ``secrets`` by id may have credentials for servers; ``agents`` by id the socket of an SSH agent, "default".
    """

    def __init__(
        self,
        session: Callable[[], Session],
        environ: Mapping[str, str],
        secrets: Mapping[str, Callable[[], bytes]],
        agents: Mapping[str, Path],
        *,
        tls_verify: bool = True,
    ) -> None:
        self._session = session
        self._environ = environ
        self._secrets = secrets
        self._agents = agents
        self._tls_verify = tls_verify
        self._lock = threading.Lock()
        self._aborted = False
        self._downloads: StoredDownloads | None = None
        self._repositories: StoredRepositories | None = None

    def of_session(self, session: Session) -> Network:
        """The same ways for another session. Enter it before use."""
        return Network(lambda: session, self._environ, self._secrets, self._agents, tls_verify=self._tls_verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._downloads is not None:
            self._downloads.close()

    def known(self, url: str, checksum: Digest | None) -> Downloaded | None:
        return self._http().known(url, checksum)

    def fetch(self, url: str, checksum: Digest | None) -> Downloaded:
        return self._http().fetch(url, checksum)

    def commit(self, source: GitSource) -> str:
        return self._git().commit(source)

    def check_out(self, source: GitSource, commit: str) -> Path:
        return self._git().check_out(source, commit)

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            started = (self._downloads, self._repositories)
        for one in started:
            if one is not None:
                one.abort()

    def _http(self) -> StoredDownloads:
        from tierce.build.downloads import StoredDownloads

        with self._lock:
            if self._aborted:
                raise Cancelled("the build was cancelled")
            if self._downloads is None:
                self._downloads = StoredDownloads(
                    self._session(), self._environ, self._secrets, tls_verify=self._tls_verify
                )
            return self._downloads

    def _git(self) -> StoredRepositories:
        from tierce.build.repositories import StoredRepositories

        with self._lock:
            if self._aborted:
                raise Cancelled("the build was cancelled")
            if self._repositories is None:
                agent = self._agents.get("default")
                self._repositories = StoredRepositories(self._session(), self._environ, self._secrets, agent)
            return self._repositories
