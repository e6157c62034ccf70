"""What a registry says is shown; what it wants to do to the terminal, or to our secrets, is not."""

from __future__ import annotations

import base64
import json

import pytest

from fixtures.registries import DOCKER_HUB, Emulator
from fixtures.registries.faults import answered, endless, with_headers
from image.errors import RegistryError, TierceError
from image.manifest import Manifest
from tests.support.registry_lab import Lab, add, read
from tests.support.tiny_image import tiny_image

IMAGE = tiny_image()


@pytest.fixture
def source(plain: Emulator) -> Emulator:
    add(plain, IMAGE)
    return plain


class TestWords:
    def refusal(self, lab: Lab, source: Emulator, body: bytes, kind: str = "application/json") -> str:
        source.on("GET .*/manifests/", answered(403, body, {"Content-Type": kind}), times=10)
        with pytest.raises(RegistryError) as caught:
            lab.open(source).fetch_manifest("1")
        return str(caught.value)

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            pytest.param(b'{"errors":[{"code":"DENIED","message":"not \\u001b[31mthis\\u001b[0m\\nway"}]}', "not [31mthis [0m way", id="escapes"),
            pytest.param(b"<html><head><title>403 Forbidden</title></head>" + b"<p>" * 500_000, "403 Forbidden", id="html"),
            pytest.param(b'{"message":"' + b"long " * 100_000 + b'"}', "long long", id="huge"),
            pytest.param(b'{"errors":"none"}', "access denied", id="other-json"),
            pytest.param(b"\xff\xfe\x00", "access denied", id="binary"),
            pytest.param(b"[" * 100_000, "[[[[", id="deep"),
        ],
    )  # fmt: skip
    def test_errors(self, lab: Lab, source: Emulator, body: bytes, shown: str) -> None:
        message = self.refusal(lab, source, body)
        assert shown in message
        assert len(message) < 600
        assert message.isprintable()

    @pytest.mark.parametrize(
        "secret", ["Bearer eyJhbGciOiJSUzI1NiJ9.secret", "Basic Ym9iOmh1bnRlcjI=", "https://s3.example/x?X-Amz-Signature=secret"]
    )  # fmt: skip
    def test_secrets_are_not_repeated(self, lab: Lab, source: Emulator, secret: str) -> None:
        message = self.refusal(lab, source, json.dumps({"message": f"refused {secret} today"}).encode())
        assert "refused" in message
        assert "today" in message
        assert not [word for word in ("secret", "Ym9iOmh1bnRlcjI=") if word in message]

    def test_endless_error(self, lab: Lab, source: Emulator) -> None:
        def act(exchange: object, _proceed: object) -> None:
            endless({"Content-Type": "application/json"})(exchange, lambda: None)  # type: ignore[arg-type]

        source.on("GET .*/manifests/", act, times=10)
        with pytest.raises(TierceError, match="larger than"):
            lab.open(source).fetch_manifest("1")

    def test_warnings(self, lab: Lab, source: Emulator) -> None:
        told: list[str] = []
        source.on("GET .*/manifests/", with_headers(Warning='299 - "old \\"API\\" \x1b[2Jgo"'))
        source.on("GET .*/manifests/", with_headers(Warning='199 - "not for users"'))
        repository = lab.open(source, warn=told.append)
        repository.fetch_manifest("1")
        repository.fetch_manifest("1")
        assert told == ['registry.example: old "API" [2Jgo']

    @pytest.mark.parametrize("name", ["../../etc", "a b", "\x1b[2J", "x" * 200])
    def test_names_that_are_none(self, lab: Lab, source: Emulator, name: str) -> None:
        body = json.dumps({"tags": ["good", name, 5, None]}).encode()
        source.on("GET .*/tags/list", answered(200, body))
        assert lab.open(source).tags() == ["good"]


def test_password_is_nowhere(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Not in errors, not in what is logged, not in what any host but the registry's own is sent."""
    registry = lab.run(DOCKER_HUB)
    add(registry, IMAGE)
    repository = lab.open(registry)
    secrets = ("hunter2", base64.b64encode(b"bob:hunter2").decode())
    _, manifest = repository.fetch_manifest("1")
    assert isinstance(manifest, Manifest)
    read(repository, manifest.config)
    with pytest.raises(RegistryError) as caught:
        repository.delete_tag("1")
    said = f"{caught.value!r} {vars(caught.value)} {repository!r} {vars(repository._authorizer)!r} {capfd.readouterr()}"
    assert not [secret for secret in secrets if secret in said]
    sent_to = {request.host for request in registry.requests if secrets[1] in request.authorization}
    assert sent_to == {"auth.docker.io"}
