"""Registries as a command uses them: one connection pool, one login each, for all its images.

Names are logical: registries.conf says which places are asked for them, and in what order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from image.digest import Digest
from image.errors import RegistryError
from image.reference import Reference
from image.value import dataclass, field, replace
from transfer.credentials import Credentials
from transfer.known_blobs import KnownBlobs
from transfer.mirrors import PullPlaces
from transfer.registries_conf.values import Place, RegistriesConf
from transfer.registry.challenge import ANONYMOUS, Authorizer, Credential
from transfer.registry.client import Repository
from transfer.registry.limits import Limits
from transfer.registry.pace import Pace
from transfer.registry.profiles import profile_for
from transfer.registry.retry import Retry
from transfer.registry.tls import certificate_directories
from transfer.registry.transport import LONGEST_PAUSE_S, Timeouts, Transport
from transfer.upload_journal import UploadJournal

if TYPE_CHECKING:
    from types import TracebackType

    from transfer.aws.ecr import Ecr, EcrRegistry


_NOT_ALLOWED: Final = 405


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
    create_repository: bool = False
    """Whether a push makes a missing repository, where the registry does not by itself (ECR)."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    uploads: Path | None = None
    """Where uploads are noted, so that another process may go on with them."""
    known_blobs: Path | None = None
    """Where it is noted which repositories have which blobs, so that they can be mounted."""
    paces: Path | None = None
    """Where it is noted that a host said to wait, so that other processes wait too."""
    limits: Limits = field(default_factory=Limits)
    """How many requests a host gets at once, and how many a second."""


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
        self._aws: Ecr | None = None
        self.known_blobs = KnownBlobs(options.known_blobs) if options.known_blobs else None
        self._pace = Pace(options.retry.longest_wait_s if options.retry else LONGEST_PAUSE_S, options.paces)
        self.transport = self._make_transport(verify=not options.insecure)
        self._careless = self.transport if options.insecure else self._make_transport(verify=False)

    def _make_transport(self, *, verify: bool) -> Transport:
        return Transport(
            self._environ,
            verify=verify,
            certificates=self._options.certificates or certificate_directories(self._environ),
            cert_dir=self._options.cert_dir,
            timeouts=self._options.timeouts,
            limits=self._options.limits,
            pace=self._pace,
        )

    @property
    def conf(self) -> RegistriesConf:
        return self._options.conf

    @property
    def journal(self) -> UploadJournal | None:
        """Notes about uploads, where there is a place for them."""
        return UploadJournal(self._options.uploads) if self._options.uploads else None

    def repository(self, reference: Reference, *, push: bool = False) -> Repository:
        """The repository of a reference, opened for pulling or for pushing too, for one transfer.

        It is in the registry itself, no mirror. Raises PolicyRejected when the name is blocked.
        """
        place = self.conf.push_place(reference) if push else self.conf.own_place(reference)
        return self._open(place, reference.domain, ("pull", "push") if push else ("pull",))

    def pull_places(self, reference: Reference) -> PullPlaces:
        """Where to ask for an image: mirrors in order, the registry itself last. Raises PolicyRejected."""
        return PullPlaces(self.conf.pull_places(reference), lambda place: self._open(place, reference.domain))

    def repository_to_delete_from(self, reference: Reference) -> Repository:
        """The repository, opened for deleting. Raises PolicyRejected when the name is blocked."""
        place = self.conf.push_place(reference)
        return self._open(place, reference.domain, ("pull", profile_for(place.reference.domain).delete_action))

    def _open(self, place: Place, domain: str, actions: tuple[str, ...] = ("pull",)) -> Repository:
        """``domain`` is the registry that the user named: a credential given for it goes to no other."""
        insecure = place.insecure or self._options.insecure
        push = "push" in actions
        transport = (self._careless if insecure else self.transport).scoped()
        return Repository(
            place.reference.path,
            self._authorizer(place.reference, insecure, named=place.reference.domain == domain, push=push),
            transport,
            actions=actions,
            retry=replace(self._options.retry, sleep=transport.sleep) if self._options.retry else None,
            warn=self._warn_once,
            create=self._creator(place.reference) if push and self._options.create_repository else None,
            upstream=domain if place.reference.domain != domain else "",
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

    def _authorizer(self, reference: Reference, insecure: bool, *, named: bool, push: bool) -> Authorizer:
        credential = self._options.credential if named else None
        if credential is None:
            credential = self._credentials.find(reference.domain, reference.path)
            credential = credential or self._aws_credential(reference.domain, push=push) or ANONYMOUS
        key = (reference.domain, credential, insecure)
        with self._lock:
            if key not in self._authorizers:
                transport = self._careless if insecure else self.transport
                self._authorizers[key] = Authorizer(reference.domain, transport, credential, insecure=insecure)
            return self._authorizers[key]

    # Amazon's registries

    def _aws_credential(self, domain: str, *, push: bool) -> Credential | None:
        """A token of AWS for a registry of theirs: nobody logs in to these by hand.

        The public registry is asked without one when AWS gives none.
        """
        registry = _ecr_registry(domain)
        if registry is None:
            return None
        try:
            return self._ecr().credential(registry, push=push)
        except RegistryError as error:
            if registry.account or push:
                raise
            self._warn_once(f"{domain} is asked without a login: {error}")
            return None

    def _creator(self, reference: Reference) -> Callable[[], None] | None:
        registry = _ecr_registry(reference.domain)
        return None if registry is None else lambda: self._ecr().create_repository(registry, reference.path)

    def _ecr(self) -> Ecr:
        from transfer.aws.ecr import Ecr

        with self._lock:
            if self._aws is None:
                self._aws = Ecr(self._environ, Transport(self._environ, timeouts=self._options.timeouts, peer="AWS"))
            return self._aws

    def catalog(self, domain: str) -> list[str]:
        """The repositories of a registry, where it tells; at Amazon's private ones by AWS's API. Raises RegistryError."""
        registry = _ecr_registry(domain)
        if registry is not None and registry.account:
            return self._ecr().repositories(registry)
        return self.repository(Reference(domain, "catalog")).catalog()

    def delete_image(self, reference: Reference, repository: Repository, digest: Digest) -> None:
        """Delete a manifest from an opened repository; at Amazon's registries by AWS's API. Raises RegistryError."""
        try:
            repository.delete_manifest(digest)
        except RegistryError as error:
            registry = _ecr_registry(reference.domain)
            if registry is None or error.status != _NOT_ALLOWED:
                raise
            self._ecr().delete_image(registry, reference.path, digest)

    def close(self) -> None:
        self.transport.close()
        self._careless.close()
        if self._aws is not None:
            self._aws.close()
        if self.known_blobs is not None:
            self.known_blobs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _ecr_registry(domain: str) -> EcrRegistry | None:
    """A look at the name first: other registries load nothing of AWS."""
    if ".dkr.ecr" not in domain and domain != "public.ecr.aws":
        return None
    from transfer.aws.ecr import ecr_registry

    return ecr_registry(domain)
