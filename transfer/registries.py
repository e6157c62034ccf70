"""Registries as a command uses them: one connection pool, one login each, for all its images.

Names are logical: registries.conf says which places are asked for them, and in what order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from image.reference import Reference
from image.value import dataclass
from transfer.credentials import Credentials
from transfer.registries_conf.values import Place, RegistriesConf
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
    ``certificates`` are directories of directories by host, ``cert_dir`` is one for all hosts.
    """

    insecure: bool = False
    credential: Credential | None = None
    certificates: tuple[Path, ...] = ()
    cert_dir: Path | None = None
    """Certificates for whatever registry is asked (``--cert-dir``), instead of those by host."""
    retry: Retry | None = None
    conf: RegistriesConf = field(default_factory=RegistriesConf)
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
        self._authorizers: dict[tuple[str, Credential, bool], Authorizer] = {}
        self._environ = environ
        self.transport = self._make_transport(verify=not options.insecure)
        self._careless = self.transport if options.insecure else self._make_transport(verify=False)

    def _make_transport(self, *, verify: bool) -> Transport:
        return Transport(
            self._environ,
            verify=verify,
            certificates=self._options.certificates or certificate_directories(self._environ),
            cert_dir=self._options.cert_dir,
            timeouts=self._options.timeouts,
        )

    @property
    def conf(self) -> RegistriesConf:
        return self._options.conf

    def repository(self, reference: Reference, *, push: bool = False) -> Repository:
        """The repository of a reference, opened for pulling or for pushing too, for one transfer.

        It is in the registry itself, no mirror. Raises PolicyRejected when the name is blocked.
        """
        place = self.conf.push_place(reference) if push else self.conf.pull_places(reference)[-1]
        return self._open(place, reference.domain, ("pull", "push") if push else ("pull",))

    def pull_repositories(self, reference: Reference) -> list[Repository]:
        """Where to ask for an image: mirrors in order, the registry itself last (see ``ask_mirrors``)."""
        return [self._open(place, reference.domain) for place in self.conf.pull_places(reference)]

    def repository_to_delete_from(self, reference: Reference) -> Repository:
        """The repository, opened for deleting. Raises PolicyRejected when the name is blocked."""
        place = self.conf.push_place(reference)
        action = "*" if place.reference.domain == "quay.io" else "delete"
        return self._open(place, reference.domain, ("pull", action))

    def _open(self, place: Place, domain: str, actions: tuple[str, ...] = ("pull",)) -> Repository:
        """``domain`` is the registry that the user named: a credential given for it goes to no other."""
        insecure = place.insecure or self._options.insecure
        transport = (self._careless if insecure else self.transport).scoped()
        return Repository(
            place.reference.path,
            self._authorizer(place.reference, insecure, named=place.reference.domain == domain),
            transport,
            actions=actions,
            retry=replace(self._options.retry, sleep=transport.sleep) if self._options.retry else None,
            warn=self._warn_once,
        )

    def _warn_once(self, text: str) -> None:
        with self._lock:
            if text in self._warned:
                return
            self._warned.add(text)
        self._warn(text)

    def check_login(self, domain: str, credential: Credential) -> None:
        """Raises RegistryError when the registry does not accept the credential."""
        rule = self.conf.rule(domain)
        insecure = self._options.insecure or (rule is not None and rule.insecure)
        transport = self._careless if insecure else self.transport
        Authorizer(domain, transport, credential, insecure=insecure).check()

    def _authorizer(self, reference: Reference, insecure: bool, *, named: bool) -> Authorizer:
        credential = self._options.credential if named else None
        if credential is None:
            credential = self._credentials.find(reference.domain, reference.path) or ANONYMOUS
        key = (reference.domain, credential, insecure)
        with self._lock:
            if key not in self._authorizers:
                transport = self._careless if insecure else self.transport
                self._authorizers[key] = Authorizer(reference.domain, transport, credential, insecure=insecure)
            return self._authorizers[key]

    def close(self) -> None:
        self.transport.close()
        self._careless.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
