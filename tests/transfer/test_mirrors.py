"""Mirrors and blocks, with registries that answer, refuse, lie and are not there."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.digest import Digest
from image.errors import Cancelled, PolicyRejected, ReferenceNotFound, RegistryError, VerificationError
from image.reference import Reference
from store.store import Store
from tests.support.fake_registry import FakeRegistry, answer, fake_registry, refuse
from tests.support.tiny_image import TinyImage, tiny_image
from tests.support.transfers import OPTIONS
from transfer.credentials import CredentialFiles, Credentials
from transfer.pull import pull
from transfer.registries import Registries, RegistryOptions
from transfer.registries_conf.values import Mirror, RegistriesConf, Rule
from transfer.registry.credential import Credential
from transfer.registry.retry import Retry
from transfer.transports.registry import RegistrySource

IMAGE = tiny_image({"a": b"1" * 5000})
ALICE = Credential("alice", "secret")


@pytest.fixture
def mirror() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


def fill(registry: FakeRegistry, repository: str, image: TinyImage = IMAGE) -> None:
    registry.add_manifest(repository, "1", image.manifest)
    for data in image.blobs.values():
        registry.add_blob(data)


def conf(registry: FakeRegistry, *mirrors: str, blocked: bool = False) -> RegistriesConf:
    rule = Rule(registry.host, registry.host, blocked=blocked, mirrors=tuple(map(Mirror, mirrors)), file="r.conf")
    return RegistriesConf((rule,))


def opened(conf: RegistriesConf, credential: Credential | None = None, auths: Path | None = None) -> Registries:
    files = CredentialFiles((auths,) if auths else (), auths or Path("/nonexistent/auth.json"))
    return Registries({}, Credentials(files, {}), RegistryOptions(credential=credential, conf=conf))


class TestFailover:
    def test_the_first_mirror_that_has_it_gives_all_of_it(
        self, fake: FakeRegistry, mirror: FakeRegistry, store: Store
    ) -> None:
        fill(mirror, "for/app")
        name = Reference.parse(f"{fake.host}/app:1")
        with opened(conf(fake, "127.0.0.1:1", f"{mirror.host}/for")) as registries:
            pulled = pull(name, store, registries, OPTIONS, unpack=False)
        assert pulled.target.digest == IMAGE.manifest.digest
        record = store.metadata.name(str(name))
        assert record is not None, "the image has the name that the user wrote"
        assert record.target.digest == IMAGE.manifest.digest
        assert fake.requests == []
        blobs = mirror.seen("GET /v2/for/app/blobs/")
        assert len(blobs) == len(IMAGE.blobs)
        asked = [*blobs, *mirror.seen("/manifests/")]
        assert [request.query for request in asked] == [{"ns": [fake.host]}] * len(asked), (
            "a mirror of several knows whose"
        )

    @pytest.mark.parametrize(
        "broken",
        [
            pytest.param(refuse(404, "MANIFEST_UNKNOWN"), id="not-there"),
            pytest.param(refuse(401, "UNAUTHORIZED"), id="wants-a-password"),
            pytest.param(refuse(403, "DENIED"), id="denied"),
            pytest.param(refuse(429, "TOOMANYREQUESTS"), id="rate-limited"),
            pytest.param(refuse(500), id="broken"),
            pytest.param(answer(200, b"<html>", {"Content-Type": "text/html"}), id="web-page"),
            pytest.param(answer(200, b"{}", {"Docker-Content-Digest": f"sha256:{'0' * 64}"}), id="other-bytes"),
        ],
    )
    def test_whatever_is_wrong_with_a_mirror_the_registry_is_asked(
        self, fake: FakeRegistry, mirror: FakeRegistry, broken: object
    ) -> None:
        fill(fake, "app")
        mirror.on("GET .*/manifests/", broken, times=9)  # type: ignore[arg-type]  # a table of actions
        with opened(conf(fake, mirror.host)) as registries:
            source = RegistrySource(Reference.parse(f"{fake.host}/app:1"), registries)
            assert source.root().digest == IMAGE.manifest.digest
        assert len(mirror.seen("GET .*/manifests/")) == 1, "a mirror is not asked again"
        assert source.name == f"docker://{fake.host}/app:1"

    def test_when_all_fail_the_registry_s_error_tells_of_the_mirrors(
        self, fake: FakeRegistry, mirror: FakeRegistry
    ) -> None:
        mirror.on("GET .*/manifests/", refuse(403, "DENIED"))
        with opened(conf(fake, mirror.host)) as registries:
            source = RegistrySource(Reference.parse(f"{fake.host}/app:1"), registries)
            with pytest.raises(ReferenceNotFound) as caught:
                source.root()
        message = str(caught.value)
        assert message.startswith(
            f"repository app not found in registry {fake.host} (tried before: {mirror.host}/app: "
        )
        assert "access denied" in message

    def test_a_wrong_digest_from_a_mirror_is_no_answer(self, fake: FakeRegistry, mirror: FakeRegistry) -> None:
        other = tiny_image({"b": b"evil"})
        fill(fake, "app")
        mirror.manifests["app", str(IMAGE.manifest.digest)] = (other.manifest.media_type, other.manifest.raw)
        with opened(conf(fake, mirror.host)) as registries:
            source = RegistrySource(Reference.parse(f"{fake.host}/app@{IMAGE.manifest.digest}"), registries)
            assert source.manifest(source.root()) == IMAGE.manifest
        assert len(mirror.seen("GET .*/manifests/")) == 1

    def test_a_stop_does_not_go_on_to_the_next(self, fake: FakeRegistry, mirror: FakeRegistry) -> None:
        with opened(conf(fake, mirror.host)) as registries:
            source = RegistrySource(Reference.parse(f"{fake.host}/app:1"), registries)
            source.abort()
            with pytest.raises(Cancelled):
                source.root()
        assert (fake.requests, mirror.seen("/manifests/")) == ([], [])


class TestCredentials:
    def test_the_registry_s_own_never_reach_a_mirror(
        self, fake: FakeRegistry, mirror: FakeRegistry, tmp_path: Path
    ) -> None:
        fake.basic, mirror.basic = ("alice", "secret"), ("mirror", "other")
        fill(fake, "app")
        fill(mirror, "app")
        auths = tmp_path / "auth.json"
        auths.write_text(f'{{"auths":{{"{fake.host}":{{"auth":"{base64.b64encode(b"alice:secret").decode()}"}}}}}}')
        for given, file in ((ALICE, None), (None, auths)):
            with opened(conf(fake, mirror.host), given, file) as registries:
                RegistrySource(Reference.parse(f"{fake.host}/app:1"), registries).root()
        assert fake.seen("GET .*/manifests/")[-1].authorization == ALICE.basic
        assert mirror.requests, "it was asked"
        assert {request.authorization for request in mirror.requests} == {""}

    def test_a_mirror_gets_its_own(self, fake: FakeRegistry, mirror: FakeRegistry, tmp_path: Path) -> None:
        mirror.basic = ("mirror", "other")
        fill(mirror, "app")
        auths = tmp_path / "auth.json"
        auths.write_text(f'{{"auths":{{"{mirror.host}":{{"auth":"{base64.b64encode(b"mirror:other").decode()}"}}}}}}')
        with opened(conf(fake, mirror.host), ALICE, auths) as registries:
            RegistrySource(Reference.parse(f"{fake.host}/app:1"), registries).root()
        assert fake.requests == []
        assert {request.authorization for request in mirror.requests} == {"", Credential("mirror", "other").basic}


def test_blocked_registries_are_not_asked(fake: FakeRegistry) -> None:
    reference = Reference.parse(f"{fake.host}/app:1")
    with opened(conf(fake, blocked=True)) as registries:
        with pytest.raises(PolicyRejected, match=r"is blocked by r\.conf"):
            RegistrySource(reference, registries)
        with pytest.raises(PolicyRejected, match=r"is blocked by r\.conf"):
            registries.repository(reference, push=True)
    assert fake.requests == []


def test_insecure_is_for_the_places_that_say_so(fake: FakeRegistry) -> None:
    """Plain http to a host that is not this machine: through a proxy that is the registry itself."""
    fill(fake, "app")
    environ = {"http_proxy": fake.url, "https_proxy": "http://127.0.0.1:1"}
    for insecure in (True, False):
        options = RegistryOptions(
            retry=Retry(attempts=1), conf=RegistriesConf((Rule("r.invalid", "r.invalid", insecure=insecure),))
        )
        credentials = Credentials(CredentialFiles((), Path("/nonexistent")), {})
        with Registries(environ, credentials, options) as registries:
            source = RegistrySource(Reference.parse("r.invalid/app:1"), registries)
            if insecure:
                assert source.root().digest == IMAGE.manifest.digest
            else:
                before = len(fake.requests)
                with pytest.raises(RegistryError):
                    source.root()
                assert len(fake.requests) == before


def test_digests_of_blobs_are_checked_whoever_sends_them(
    fake: FakeRegistry, mirror: FakeRegistry, store: Store
) -> None:
    fill(mirror, "app")
    layer = IMAGE.manifest.layers[0]
    mirror.blobs[str(layer.digest)] = bytes(layer.size)
    name = Reference.parse(f"{fake.host}/app:1")
    with opened(conf(fake, mirror.host)) as registries, pytest.raises(VerificationError):
        pull(name, store, registries, OPTIONS, unpack=False)
    assert store.metadata.name(str(name)) is None
    assert not store.content.has(Digest(str(layer.digest)))
