"""Registries as a command uses them: one connection pool, one login each, for all its images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from image.reference import Reference
from image.value import dataclass
from transfer.credentials import Credentials
from transfer.registry.challenge import ANONYMOUS, Authorizer, Credential
from transfer.registry.client import Repository
from transfer.registry.retry import Retry
from transfer.registry.tls import certificate_directories
from transfer.registry.transport import Timeouts, Transport

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How to reach registries.

    ``insecure`` accepts any certificate and plain http (``--tls-verify=false``). A
    ``credential`` here wins over the user's files; ANONYMOUS uses none (``--no-creds``).
    """

    insecure: bool = False
    credential: Credential | None = None
    certificates: tuple[Path, ...] = ()
    cert_dir: Path | None = None
    """Certificates for whatever registry is asked (``--cert-dir``), instead of those by host."""
    retry: Retry | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


class Registries:
    """Opens repositories. A context manager that closes its connections.

    ``warn`` is called once with each warning that a registry sends along.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        credentials: Credentials,
        options: RegistryOptions = RegistryOptions(),
        *,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._options = options
        self._credentials = credentials
        self._lock = threading.Lock()
        self._warn = warn
        self._warned: set[str] = set()
        self._authorizers: dict[tuple[str, Credential], Authorizer] = {}
        self.transport = Transport(
            environ,
            verify=not options.insecure,
            certificates=options.certificates or certificate_directories(environ),
            cert_dir=options.cert_dir,
            timeouts=options.timeouts,
        )

    def repository(self, reference: Reference, *, push: bool = False) -> Repository:
        """The repository of a reference, opened for pulling or for pushing too, for one transfer."""
        actions = ("pull", "push") if push else ("pull",)
        transport = self.transport.scoped()
        retry = replace(self._options.retry, sleep=transport.sleep) if self._options.retry else None
        return Repository(
            reference.path, self._authorizer(reference), transport, actions=actions, retry=retry, warn=self._warn_once
        )

    def _warn_once(self, text: str) -> None:
        with self._lock:
            if text in self._warned:
                return
            self._warned.add(text)
        self._warn(text)

    def check_login(self, domain: str, credential: Credential) -> None:
        """Raises RegistryError when the registry does not accept the credential."""
        authorizer = Authorizer(domain, self.transport, credential, insecure=self._options.insecure)
        authorizer.check()

    def _authorizer(self, reference: Reference) -> Authorizer:
        credential = self._options.credential
        if credential is None:
            credential = self._credentials.find(reference.domain, reference.path) or ANONYMOUS
        key = (reference.domain, credential)
        with self._lock:
            if key not in self._authorizers:
                self._authorizers[key] = Authorizer(
                    reference.domain, self.transport, credential, insecure=self._options.insecure
                )
            return self._authorizers[key]

    def close(self) -> None:
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
