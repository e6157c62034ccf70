"""Emulated registries under their real names, and clients that reach them through a proxy and TLS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from fixtures.registries import Behaviour, Certificate, Emulator, emulate
from image.descriptor import Descriptor
from image.digest import Digest
from tests.support.tiny_image import TinyImage
from tests.support.transfers import QUICK
from transfer.credentials import CredentialFiles, Credentials
from transfer.registries import Registries, RegistryOptions
from transfer.registry.challenge import Authorizer
from transfer.registry.client import Repository
from transfer.registry.credential import ANONYMOUS, Credential
from transfer.registry.pace import Pace
from transfer.registry.retry import Retry
from transfer.registry.transport import Timeouts, Transport

BOB = Credential("bob", "hunter2")
AWS = Credential("AWS", "secret")
PATH = "me/app"


class Lab:
    """Opens registries and repositories; closing ends them all."""

    def __init__(self, certificate: Certificate, directory: Path) -> None:
        self.certificates = directory / "certs.d"
        self._certificate = certificate
        self._stack = ExitStack()

    def run(self, behaviour: Behaviour) -> Emulator:
        """A registry that knows bob and AWS, and has the repository ``me/app``."""
        registry = self._stack.enter_context(emulate(behaviour, self._certificate, self.certificates))
        registry.tokens.accounts |= {"bob": "hunter2", "AWS": "secret"}
        registry.storage.create(PATH)
        return registry

    def transport(self, registry: Emulator, timeouts: Timeouts | None = None) -> Transport:
        made = Transport(
            registry.environ, certificates=(self.certificates,), timeouts=timeouts or Timeouts(), pace=Pace(0)
        )
        self._stack.callback(made.close)
        return made

    def authorizer(
        self,
        registry: Emulator,
        credential: Credential | None = None,
        *,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Authorizer:
        """Logged in as the registry wants it, unless a ``credential`` is given."""
        usual = {"none": ANONYMOUS, "basic": AWS, "bearer": BOB}[registry.behaviour.auth]
        transport = self.transport(registry, timeouts)
        made = Authorizer(registry.behaviour.host, transport, usual if credential is None else credential)
        if clock is not None:
            made._clock = clock
        return made

    def open(
        self,
        registry: Emulator,
        path: str = PATH,
        credential: Credential | None = None,
        *,
        push: bool = True,
        retry: Retry = QUICK,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] | None = None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> Repository:
        """A repository, by the registry's real name; a client of its own."""
        authorizer = self.authorizer(registry, credential, timeouts=timeouts, clock=clock)
        actions = ("pull", "push") if push else ("pull",)
        return Repository(path, authorizer, authorizer._transport, actions=actions, retry=retry, warn=warn)

    def registries(self, *running: Emulator, credential: Credential = ANONYMOUS) -> Registries:
        """As a command has them. All but one of ``running`` are reached by their loopback names."""
        options = RegistryOptions(credential=credential, certificates=(self.certificates,), retry=QUICK)
        nowhere = Credentials(CredentialFiles((), Path("/nonexistent/config.json")), {})
        made = Registries(running[0].environ, nowhere, options)
        self._stack.callback(made.close)
        return made

    def close(self) -> None:
        self._stack.close()


def read(repository: Repository, blob: Descriptor) -> bytes:
    with repository.open_blob(blob) as blocks:
        return b"".join(bytes(block) for block in blocks)


def upload(repository: Repository, data: bytes, *, algorithm: str = "sha256") -> Descriptor:
    """In one request."""
    opened = repository.begin_upload()
    assert opened is not None
    blob = Descriptor("application/octet-stream", Digest.of(data, algorithm), len(data))
    repository.upload(blob, iter([data]), opened)
    return blob


def push(repository: Repository, image: TinyImage, tag: str) -> None:
    for data in image.blobs.values():
        upload(repository, data)
    repository.put_manifest(tag, image.manifest)


def add(registry: Emulator, image: TinyImage, tag: str = "1", path: str = PATH) -> str:
    """Put an image into a registry's storage; says its digest."""
    return registry.add_image(path, tag, image.manifest.media_type, image.manifest.raw, image.blobs)
