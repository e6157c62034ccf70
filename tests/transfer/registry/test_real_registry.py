"""The client against docker-registry: with a password file, and with tokens of our token server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from fixtures.registries import Behaviour, Emulator, emulate
from fixtures.registries.jwt import make_signer
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import RegistryError
from image.manifest import Manifest
from tests.support.process import need
from tests.support.registry import Login, Registry, TokenAuth, registry
from tests.support.registry_lab import BOB, push, read, upload
from tests.support.tiny_image import tiny_image
from tests.support.transfers import QUICK
from transfer.registry.challenge import Authorizer
from transfer.registry.client import Repository, Upload
from transfer.registry.credential import ANONYMOUS, Credential
from transfer.registry.transport import Transport

pytestmark = pytest.mark.peer

BLOB = bytes(range(256)) * 40_000  # 10 MB: three chunks
DESCRIPTOR = Descriptor.of(BLOB, "application/octet-stream")


@dataclass(frozen=True)
class Place:
    """A real registry, and where its tokens come from when they do."""

    registry: Registry
    tokens: Emulator | None
    transport: Transport

    def open(self, path: str, credential: Credential = BOB, *, can_push: bool = True) -> Repository:
        authorizer = Authorizer(self.registry.host, self.transport, credential)
        return Repository(
            path, authorizer, self.transport, actions=("pull", "push") if can_push else ("pull",), retry=QUICK
        )


@pytest.fixture(scope="module", params=["htpasswd", "tokens"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    need("docker-registry")
    need("openssl")
    directory = tmp_path_factory.mktemp("registry")
    transport = Transport({})
    try:
        if request.param == "htpasswd":
            with registry(directory, login=Login("bob", "hunter2")) as running:
                yield Place(running, None, transport)
            return
        signer = make_signer(directory, issuer="tierce tests", service="real")
        with emulate(Behaviour("tokens", auth="bearer", service="real", token_host="tokens.example")) as server:
            server.tokens.accounts["bob"] = "hunter2"
            server.tokens.make_token = lambda grant: signer.token(
                grant.user, grant.scopes, server.tokens.clock(), grant.ends_s
            )
            wanted = TokenAuth(server.token_url, signer.service, signer.issuer, signer.certificate)
            with registry(directory, tokens=wanted) as running:
                yield Place(running, server, transport)
    finally:
        transport.close()


def test_push_and_pull(place: Place) -> None:
    image = tiny_image({"a": b"1" * 1000}, {"b": b"2"})
    push(place.open("one/app"), image, "1")
    reader = place.open("one/app", can_push=False)
    _, manifest = reader.fetch_manifest("1")
    assert isinstance(manifest, Manifest)
    assert manifest.raw == image.manifest.raw
    for blob in manifest.children:
        assert read(reader, blob) == image.blobs[str(blob.digest)]
    assert reader.tags() == ["1"]


def test_stream_and_chunks(place: Place) -> None:
    repository = place.open("two/app")
    for send in (repository.upload_stream, repository.upload_chunks):
        opened = repository.begin_upload()
        assert opened is not None
        data = BLOB + send.__name__.encode()
        send(iter([data[: 5 << 20], data[5 << 20 :]]), opened, lambda: Digest.of(data))  # noqa: B023 - used at once
        assert read(repository, Descriptor.of(data, "x")) == data


def test_upload_that_another_process_goes_on_with(place: Place) -> None:
    first = place.open("three/app")
    kept: list[Upload] = []
    opened = first.begin_upload()
    assert opened is not None

    def stops() -> Iterator[bytes]:
        yield BLOB[: 9 << 20]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        first.upload_chunks(stops(), opened, lambda: DESCRIPTOR.digest, keep=kept.append)
    second = place.open("three/app")
    found = second.find_upload(kept[-1])
    assert found is not None
    assert found.offset == kept[-1].offset == 8 << 20
    second.upload_chunks(iter([BLOB[found.offset :]]), found, lambda: DESCRIPTOR.digest, keep=kept.append)
    assert read(second, DESCRIPTOR) == BLOB
    assert second.find_upload(replace(found, offset=0)) is None


def test_mount(place: Place) -> None:
    blob = upload(place.open("four/base"), b"shared")
    target = place.open("four/app")
    assert target.begin_upload(mount=blob.digest, source="four/base") is None
    assert target.has_blob(blob.digest)


def test_referrers_under_the_tag(place: Place) -> None:
    image = tiny_image()
    repository = place.open("five/app")
    push(repository, image, "1")
    config = upload(repository, b"{}")
    artifact = Manifest.build(config, [], subject=image.manifest.descriptor, artifact_type="example/sbom")
    repository.put_manifest(str(artifact.digest), artifact)
    assert [entry.digest for entry in repository.referrers(image.manifest.digest)] == [artifact.digest]
    repository.delete_manifest(artifact.digest)
    assert repository.referrers(image.manifest.digest) == ()


def test_catalog(place: Place) -> None:
    push(place.open("six/app"), tiny_image(), "1")
    assert "six/app" in place.open("six/app").catalog()


def test_who_may_not(place: Place) -> None:
    for credential, words in (
        (Credential("bob", "other"), "as bob: wrong user name or password"),
        (ANONYMOUS, "access denied: log in with 'tierce login"),
    ):
        with pytest.raises(RegistryError, match=words) as caught:
            place.open("seven/app", credential).begin_upload()
        assert "hunter2" not in repr(vars(caught.value))


@pytest.mark.parametrize("place", ["tokens"], indirect=True)
def test_tokens_that_end(place: Place) -> None:
    """The client asks anew before the end comes that the server told."""
    assert place.tokens is not None
    repository = place.open("eight/app")
    upload(repository, b"one")
    asked = len(place.tokens.seen("/token"))
    repository._authorizer._clock = lambda: place.tokens.tokens.clock() + 295  # type: ignore[union-attr]
    upload(repository, b"two")
    assert len(place.tokens.seen("/token")) == asked + 1
