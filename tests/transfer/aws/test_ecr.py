"""Tokens and repositories: with moto, which checks our signatures, and pushes to an emulated ECR."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.registries import ECR, ECR_PUBLIC, Emulator, emulate, make_certificate
from image.digest import Digest
from image.errors import RegistryError
from image.reference import Reference
from store.store import Store
from tests.support.fake_registry import FakeRegistry, Handler, answer
from tests.support.tiny_image import add_to_store, tiny_image
from tests.support.transfers import OPTIONS
from tests.transfer.aws.conftest import Moto
from transfer.aws.ecr import Ecr, EcrRegistry, ecr_registry
from transfer.credentials import CredentialFiles, Credentials
from transfer.pull import pull
from transfer.push import push
from transfer.registries import Registries, RegistryOptions
from transfer.registry.credential import Credential
from transfer.registry.transport import Transport

PRIVATE = cast("EcrRegistry", ecr_registry("123456789012.dkr.ecr.eu-west-1.amazonaws.com"))
PUBLIC = cast("EcrRegistry", ecr_registry("public.ecr.aws"))
IMAGE = tiny_image({"a": b"1" * 5000}, {"b": b"2" * 5000})
NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}
SOMEBODY = {**NOBODY, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret"}


def token(password: str, expires: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode()}
    return found | ({"expiresAt": expires} if expires else {})


def tokens(*found: dict[str, Any]) -> bytes:
    return json.dumps({"authorizationData": list(found)}).encode()


@pytest.mark.parametrize(
    ("domain", "api"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://api.ecr.eu-west-1.amazonaws.com/"),
        ("123456789012.dkr.ecr-fips.us-east-2.amazonaws.com", "https://ecr-fips.us-east-2.amazonaws.com/"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "https://api.ecr.cn-north-1.amazonaws.com.cn/"),
        ("public.ecr.aws", "https://api.ecr-public.us-east-1.amazonaws.com/"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
        ("12345.dkr.ecr.eu-west-1.amazonaws.com", None),
        ("evil.example", None),
    ],
)
def test_which_names_are_amazon_s(domain: str, api: str | None) -> None:
    registry = ecr_registry(domain)
    assert (registry.api({}).url if registry else None) == api


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"AWS_ENDPOINT_URL": "http://all:1"}, "http://all:1/"),
        ({"AWS_ENDPOINT_URL": "http://all:1", "AWS_ENDPOINT_URL_ECR": "http://ecr:2/"}, "http://ecr:2/"),
        ({"AWS_ENDPOINT_URL_ECR_PUBLIC": "http://public:3"}, "https://api.ecr.eu-west-1.amazonaws.com/"),
    ],
)
def test_endpoints_can_be_elsewhere(environ: dict[str, str], url: str) -> None:
    assert PRIVATE.api(environ).url == url


class TestMoto:
    """The signature of every call is checked."""

    def test_a_token(self, moto: Moto, transport: Transport) -> None:
        assert Ecr(moto.environ, transport).credential(PRIVATE) == Credential("AWS", "123456789012-auth-token")

    def test_a_repository_is_made_once_and_may_be_there(self, moto: Moto, transport: Transport) -> None:
        for _ in range(2):
            Ecr(moto.environ, transport).create_repository(PRIVATE, "team/app")

    def test_what_the_registry_itself_does_not_do(
        self, moto: Moto, transport: Transport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Repositories are listed over pages, an image is deleted with its tags, and again."""
        monkeypatch.setattr("transfer.aws.ecr._PAGE", 2)
        ecr = Ecr(moto.environ, transport)
        for name in "abc":
            ecr.create_repository(PRIVATE, f"listed/{name}")
        assert {"listed/a", "listed/b", "listed/c"} <= set(ecr.repositories(PRIVATE))
        image = {"repositoryName": "listed/a", "imageManifest": IMAGE.manifest.raw.decode(), "imageTag": "1"}
        digest = Digest(ecr._ask(PRIVATE, "PutImage", image)["image"]["imageId"]["imageDigest"])
        ecr.delete_image(PRIVATE, "listed/a", digest)
        assert ecr._ask(PRIVATE, "ListImages", {"repositoryName": "listed/a"})["imageIds"] == []
        ecr.delete_image(PRIVATE, "listed/a", digest)
        with pytest.raises(RegistryError, match=r"^BatchDeleteImage of ecr in eu-west-1: "):
            ecr.delete_image(PRIVATE, "absent", digest)

    @pytest.mark.parametrize(
        "wrong", [{"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}], ids=["secret", "id"]
    )
    def test_wrong_keys_are_told(self, moto: Moto, transport: Transport, wrong: dict[str, str]) -> None:
        with pytest.raises(RegistryError, match=r"^GetAuthorizationToken of ecr in eu-west-1: ") as caught:
            Ecr({**moto.environ, **wrong}, transport).credential(PRIVATE)
        assert caught.value.status == 403
        assert moto.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


class TestTokens:
    def test_a_new_one_before_the_old_ends(self, aws: FakeRegistry, transport: Transport) -> None:
        for number in (1, 2):
            aws.on("POST /", answer(200, tokens(token(f"pw{number}", 1000.0 * number + 10_000))))
        now = [5000.0]
        ecr = Ecr({**SOMEBODY, "AWS_ENDPOINT_URL": aws.url}, transport, lambda: now[0])
        assert ecr.credential(PRIVATE) == Credential("AWS", "pw1")
        now[0] = 10_900.0
        assert ecr.credential(PRIVATE) == Credential("AWS", "pw2")
        assert len(aws.requests) == 2

    def test_the_public_one(self, aws: FakeRegistry, transport: Transport) -> None:
        aws.on("POST /", answer(200, json.dumps({"authorizationData": token("pw")}).encode()))
        found = Ecr({**SOMEBODY, "AWS_ENDPOINT_URL_ECR_PUBLIC": aws.url}, transport).credential(PUBLIC)
        assert found == Credential("AWS", "pw")
        [request] = aws.requests
        assert request.headers["x-amz-target"] == "SpencerFrontendService.GetAuthorizationToken"
        assert "/us-east-1/ecr-public/aws4_request" in request.authorization

    def test_without_an_identity(self, transport: Transport) -> None:
        ecr = Ecr(NOBODY, transport)
        assert ecr.credential(PUBLIC) is None
        for registry, pushes in ((PRIVATE, False), (PUBLIC, True)):
            with pytest.raises(RegistryError, match="nothing says who you are at AWS: set AWS_ACCESS_KEY_ID"):
                ecr.credential(registry, push=pushes)

    @pytest.mark.parametrize(
        ("status", "body", "message"),
        [
            pytest.param(400, b'{"__type":"com.amazon#AccessDeniedException","message":"User x may\\u001b not"}', "GetAuthorizationToken of ecr in eu-west-1: User x may not", id="denied"),
            pytest.param(400, b'{"__type":"UnrecognizedClientException","message":"The security token is invalid"}', r"AWS does not accept these credentials \(The security token is invalid\)", id="unknown-keys"),
            pytest.param(503, b"<html>", "GetAuthorizationToken of ecr in eu-west-1: status 503", id="web-page"),
            pytest.param(200, b"[]", "the reply is not a JSON object", id="list"),
            pytest.param(200, b"{}", "AWS gave no token", id="empty"),
            pytest.param(200, b'{"authorizationData":[{"authorizationToken":"%%"}]}', "AWS gave no token", id="no-base64"),
            pytest.param(200, b'{"authorizationData":[5]}', "AWS gave no token", id="no-mapping"),
        ],
    )  # fmt: skip
    def test_what_aws_may_say(
        self,
        aws: FakeRegistry,
        transport: Transport,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
        body: bytes,
        message: str,
    ) -> None:
        aws.on("POST /", answer(status, body), times=9)
        monkeypatch.setattr(transport, "sleep", lambda _seconds: None)
        with pytest.raises(RegistryError, match=message) as caught:
            Ecr({**SOMEBODY, "AWS_ENDPOINT_URL": aws.url}, transport).credential(PRIVATE)
        assert "s3cret" not in str(caught.value)
        assert len(aws.requests) == (3 if status == 503 else 1)


@contextmanager
def cloud(
    aws: FakeRegistry, registry: Emulator, certificates: Path, *, create: bool = False
) -> Iterator[Registries]:  # fmt: skip
    """A user with keys, for whom the emulator is at ECR's own name."""
    environ = {**SOMEBODY, **registry.environ, "AWS_ENDPOINT_URL": aws.url}
    options = RegistryOptions(certificates=(certificates,), create_repository=create)
    with Registries(environ, Credentials(CredentialFiles((), Path("/nonexistent")), {}), options) as opened:
        yield opened


def play(aws: FakeRegistry, registry: Emulator) -> None:
    """AWS's API beside an emulated registry: it gives the password, and makes repositories."""
    registry.tokens.accounts["AWS"] = "pw"

    def serve(handler: Handler) -> None:
        if handler.headers["X-Amz-Target"].endswith(".CreateRepository"):
            registry.storage.create(json.loads(handler.content)["repositoryName"])
            handler.reply(200, b"{}")
        else:
            handler.reply(200, tokens(token("pw")))

    aws.on("POST /", serve, times=99)


def actions(aws: FakeRegistry) -> list[str]:
    return [request.headers["x-amz-target"].rpartition(".")[2] for request in aws.requests]


class TestRegistry:
    @pytest.fixture
    def registry(self, tmp_path: Path) -> Iterator[Emulator]:
        with emulate(ECR, make_certificate(tmp_path), tmp_path / "certs.d") as running:
            yield running

    def test_push_makes_the_repository_once_and_pull_gives_it_back(
        self, aws: FakeRegistry, registry: Emulator, store: Store, tmp_path: Path
    ) -> None:
        play(aws, registry)
        add_to_store(store, IMAGE, "app:1")
        name = Reference.parse(f"{ECR.host}/team/app:1")
        with cloud(aws, registry, tmp_path / "certs.d", create=True) as registries:
            push("app:1", name, store, registries, OPTIONS)
        assert actions(aws) == ["GetAuthorizationToken", "CreateRepository"]
        with Store.open(tmp_path / "other") as other, cloud(aws, registry, tmp_path / "certs.d") as registries:
            assert pull(name, other, registries, OPTIONS, unpack=False).target.digest == IMAGE.manifest.digest
        assert actions(aws)[2:] == ["GetAuthorizationToken"]
        basic = Credential("AWS", "pw").basic
        stores = [seen for seen in registry.requests if seen.host == ECR.blob_host]
        assert stores, "blobs come from elsewhere"
        assert basic not in {seen.headers.get("authorization") for seen in stores}

    def test_what_it_does_not_do_itself_goes_to_the_api(
        self, aws: FakeRegistry, registry: Emulator, tmp_path: Path
    ) -> None:
        play(aws, registry)
        registry.add_image("team/app", "1", IMAGE.manifest.media_type, IMAGE.manifest.raw, IMAGE.blobs)
        name = Reference.parse(f"{ECR.host}/team/app:1")
        with cloud(aws, registry, tmp_path / "certs.d") as registries:
            registries.delete_image(name, registries.repository_to_delete_from(name), IMAGE.manifest.digest)
            registries.catalog(ECR.host)
        assert actions(aws) == ["GetAuthorizationToken", "BatchDeleteImage", "DescribeRepositories"]
        sent = json.loads(aws.requests[1].body)
        assert (sent["repositoryName"], sent["imageIds"]) == ("team/app", [{"imageDigest": str(IMAGE.manifest.digest)}])

    def test_without_the_wish_nothing_is_made(
        self, aws: FakeRegistry, registry: Emulator, store: Store, tmp_path: Path
    ) -> None:
        play(aws, registry)
        add_to_store(store, IMAGE, "app:1")
        with cloud(aws, registry, tmp_path / "certs.d") as registries, pytest.raises(RegistryError) as caught:
            push("app:1", Reference.parse(f"{ECR.host}/team/app:1"), store, registries, OPTIONS)
        assert "NAME_UNKNOWN" in caught.value.codes
        assert actions(aws) == ["GetAuthorizationToken"]


def test_the_public_registry_is_asked_without_a_login_when_aws_gives_none(
    aws: FakeRegistry, tmp_path: Path
) -> None:  # fmt: skip
    aws.on("POST /", answer(400, b'{"__type":"AccessDeniedException","message":"no"}'))
    with emulate(ECR_PUBLIC, make_certificate(tmp_path), tmp_path / "certs.d") as registry:
        registry.add_image("team/app", "1", IMAGE.manifest.media_type, IMAGE.manifest.raw, IMAGE.blobs)
        with cloud(aws, registry, tmp_path / "certs.d") as registries:
            repository = registries.repository(Reference.parse(f"{ECR_PUBLIC.host}/team/app:1"))
            assert repository.fetch_manifest("1")[1] == IMAGE.manifest
