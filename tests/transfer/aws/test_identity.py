"""Where keys are found, in which order, and what is said of places that are broken."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs

import pytest

from image.errors import InvalidInput, RegistryError
from tests.support.fake_registry import FakeRegistry, answer
from tests.transfer.aws.conftest import Moto
from transfer.aws.identity import Identity, find_keys
from transfer.aws.signing import AwsKeys
from transfer.registry.transport import Transport

ROLE_KEYS = {
    "AccessKeyId": "ASIAROLE", "SecretAccessKey": "role", "Token": "session", "Expiration": "2100-01-01T00:00:00Z",
}  # fmt: skip
IN_2100_S = 4102444800.0


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user without any identity, on a machine that is no instance."""
    return {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_nobody(environ: dict[str, str], transport: Transport) -> None:
    assert find_keys(environ, transport) is None


def test_the_environment_comes_first(environ: dict[str, str], transport: Transport, tmp_path: Path) -> None:
    write(tmp_path / ".aws/credentials", "[default]\naws_access_key_id = FILE\naws_secret_access_key = x\n")
    found = find_keys(environ, transport)
    assert found is not None
    assert found.access_key_id == "FILE"
    environ |= {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    found = find_keys(environ, transport)
    assert found is not None
    assert (found.access_key_id, found.secret_access_key, found.session_token) == ("ENV", "s", "t")


class TestProfiles:
    @pytest.mark.parametrize(
        ("name", "expected"), [(None, "DEFAULT"), ("work", "WORK"), ("config-only", "CONFIG"), ("both", "CREDENTIALS")]
    )
    def test_sections_of_both_files(
        self, environ: dict[str, str], transport: Transport, tmp_path: Path, name: str | None, expected: str
    ) -> None:
        def section(title: str, key: str) -> str:
            return f"[{title}]\naws_access_key_id={key}\naws_secret_access_key = a%b\naws_session_token = t\n"

        write(tmp_path / ".aws/credentials", section("default", "DEFAULT") + section("work", "WORK") + section("both", "CREDENTIALS"))  # fmt: skip
        write(tmp_path / ".aws/config", section("profile config-only", "CONFIG") + section("profile both", "CONFIG"))
        found = find_keys({**environ, **({"AWS_PROFILE": name} if name else {})}, transport)
        assert found is not None
        assert (found.access_key_id, found.secret_access_key, found.session_token) == (expected, "a%b", "t")

    def test_files_elsewhere(self, environ: dict[str, str], transport: Transport, tmp_path: Path) -> None:
        file = write(tmp_path / "mine", "[default]\naws_access_key_id = MINE\naws_secret_access_key = x\n")
        found = find_keys({**environ, "AWS_SHARED_CREDENTIALS_FILE": str(file)}, transport)
        assert found is not None
        assert found.access_key_id == "MINE"

    @pytest.mark.parametrize(
        ("text", "profile", "message"),
        [
            pytest.param("", "absent", r"AWS profile 'absent' is neither in .*credentials nor in .*config", id="absent"),
            pytest.param("[default]\naws_access_key_id = A\n", None, "without aws_secret_access_key", id="half"),
            pytest.param("[default]\ncredential_process = /absent/x\n", None, "of AWS profile 'default': can't be run: No such file", id="process"),
            pytest.param("[default]\ncredential_process = false s3cret\n", None, "failed with exit code 1$", id="process-fails"),
            pytest.param("[default]\ncredential_process = echo '{\"AccessKeyId\": \"s3cret\"}'\n", None, "not of version 1$", id="process-version"),
            pytest.param("[default]\nsso_session = x\n", None, "signs on without a valid sso_start_url$", id="sso"),
            pytest.param("[default]\nsso_region = a/b\nsso_start_url = x\nsso_account_id = 1\nsso_role_name = r\n", None, "without a valid sso_region$", id="sso-region"),
            pytest.param("[default]\nsso_region = a\nsso_start_url = x\nsso_account_id = 1\nsso_role_name = r\n", None, "nobody is signed on: run aws sso login --profile default$", id="sso-nobody"),
            pytest.param("[default]\nrole_arn = x\nsource_profile = y\n", None, "uses source_profile", id="chain"),
            pytest.param("aws_access_key_id = s3cret\n", None, r"credentials:1: not a file of AWS profiles$", id="no-section"),
            pytest.param("[default]\ns3cret\n", None, r"credentials:2: not a file of AWS profiles$", id="no-key"),
        ],
    )  # fmt: skip
    def test_what_can_t_be_used(
        self,
        environ: dict[str, str],
        transport: Transport,
        tmp_path: Path,
        text: str,
        profile: str | None,
        message: str,
    ) -> None:
        write(tmp_path / ".aws/credentials", text)
        with pytest.raises(InvalidInput, match=message) as caught:
            find_keys({**environ, **({"AWS_PROFILE": profile} if profile else {})}, transport)
        assert "s3cret" not in str(caught.value)


def test_a_program_gives_keys(environ: dict[str, str], transport: Transport, tmp_path: Path) -> None:
    said = {
        "Version": 1, "AccessKeyId": "PROGRAM", "SecretAccessKey": "a b", "SessionToken": "$HOME",
        "Expiration": "2100-01-01T00:00:00Z",
    }  # fmt: skip
    program = write(tmp_path / "with space/keys", f"#!/bin/sh\n[ \"$1\" = 'two words' ] && echo '{json.dumps(said)}'\n")
    program.chmod(0o755)
    write(tmp_path / ".aws/config", f"[profile p]\ncredential_process = '{program}' \"two words\"\n")
    found = find_keys({**environ, "AWS_PROFILE": "p", "PATH": "/usr/bin:/bin"}, transport)
    assert found == AwsKeys("PROGRAM", "a b", "$HOME", IN_2100_S)


class TestSignOn:
    """``aws sso login`` leaves a token, which gives the keys of a role."""

    KEYS: ClassVar = {
        "accessKeyId": "ASIASSO",
        "secretAccessKey": "s",
        "sessionToken": "t",
        "expiration": 4102444800000,
    }

    @pytest.fixture
    def signed_on(self, environ: dict[str, str], aws: FakeRegistry, tmp_path: Path) -> dict[str, str]:
        write(
            tmp_path / ".aws/config",
            "[default]\nsso_session = work\nsso_account_id = 12\nsso_role_name = ci & cd\n"
            "[sso-session work]\nsso_region = eu-west-1\nsso_start_url = https://x.awsapps.com/start\n",
        )
        self.sign_on(tmp_path, "2100-01-01T00:00:00Z")
        return {**environ, "AWS_ENDPOINT_URL_SSO": aws.url}

    @staticmethod
    def sign_on(home: Path, until: str) -> None:
        name = hashlib.sha1(b"work").hexdigest()
        write(home / f".aws/sso/cache/{name}.json", json.dumps({"accessToken": "s3cret", "expiresAt": until}))

    def test_keys_of_a_role(self, signed_on: dict[str, str], transport: Transport, aws: FakeRegistry) -> None:
        aws.on("GET /federation/credentials", answer(200, json.dumps({"roleCredentials": self.KEYS}).encode()))
        assert find_keys(signed_on, transport) == AwsKeys("ASIASSO", "s", "t", IN_2100_S)
        (asked,) = aws.requests
        assert asked.query == {"role_name": ["ci & cd"], "account_id": ["12"]}
        assert asked.headers["x-amz-sso_bearer_token"] == "s3cret"

    def test_a_sign_on_that_has_ended(
        self, signed_on: dict[str, str], transport: Transport, aws: FakeRegistry, tmp_path: Path
    ) -> None:
        aws.on("GET /", answer(401, b'{"message": "s3cret"}'))
        with pytest.raises(InvalidInput, match=r"its sign-on has ended: run aws sso login --profile default$"):
            find_keys(signed_on, transport)
        self.sign_on(tmp_path, "2020-01-01T00:00:00UTC")
        with pytest.raises(InvalidInput, match="nobody is signed on: run aws sso login"):
            find_keys(signed_on, transport)
        assert len(aws.requests) == 1

    @pytest.mark.parametrize(
        ("status", "body", "message"),
        [
            (403, b'{"message": "No access\x1b"}', "the reply is not a JSON object"),
            (403, b'{"message": "No access"}', "^sign on as ci & cd: No access$"),
            (200, b'{"roleCredentials": []}', "the reply has no keys"),
        ],
    )
    def test_replies_that_are_none(
        self, signed_on: dict[str, str], transport: Transport, aws: FakeRegistry, status: int, body: bytes, message: str
    ) -> None:
        aws.on("GET /", answer(status, body))
        with pytest.raises(RegistryError, match=message):
            find_keys(signed_on, transport)


class TestWebIdentity:
    def test_sts_gives_keys_for_a_token(
        self, environ: dict[str, str], transport: Transport, tmp_path: Path, open_moto: Moto
    ) -> None:
        token = write(tmp_path / "token", "a-web-identity-token\n")
        role = "arn:aws:iam::123456789012:role/ci-pushes"
        said = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": role, "AWS_ENDPOINT_URL_STS": open_moto.url}
        found = find_keys({**environ, **said}, transport)
        assert found is not None
        assert found.access_key_id.startswith("ASIA")
        assert found.session_token
        assert found.expires_s

    def test_from_a_profile_and_refused(
        self, environ: dict[str, str], transport: Transport, tmp_path: Path, aws: FakeRegistry
    ) -> None:
        token = write(tmp_path / "token", "s3cret")
        write(tmp_path / ".aws/config", f"[default]\nrole_arn = arn:x\nweb_identity_token_file = {token}\n")
        refusal = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized\x1b</Message></Error></ErrorResponse>"
        aws.on("POST /", answer(403, refusal))
        with pytest.raises(RegistryError, match=r"^assume role arn:x with a web identity: Not authorized$"):
            find_keys({**environ, "AWS_ENDPOINT_URL": aws.url}, transport)
        form = parse_qs(aws.requests[0].body.decode())
        assert (form["RoleArn"], form["WebIdentityToken"], form["RoleSessionName"]) == (
            ["arn:x"],
            ["s3cret"],
            ["tierce"],
        )

    def test_the_file_must_be_there(self, environ: dict[str, str], transport: Transport, tmp_path: Path) -> None:
        said = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "absent"), "AWS_ROLE_ARN": "arn:x"}
        with pytest.raises(InvalidInput, match=r"read web identity token .*absent: no such file"):
            find_keys({**environ, **said}, transport)


class TestRoles:
    def test_of_a_container(
        self, environ: dict[str, str], transport: Transport, tmp_path: Path, aws: FakeRegistry
    ) -> None:
        aws.on("GET /role/x", answer(200, json.dumps(ROLE_KEYS).encode()))
        token = write(tmp_path / "token", "t0ken\n")
        said = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{aws.url}/role/x?id=1",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        }
        found = find_keys({**environ, **said}, transport)
        assert found is not None
        assert (found.access_key_id, found.session_token, found.expires_s) == ("ASIAROLE", "session", IN_2100_S)
        assert (aws.requests[0].authorization, aws.requests[0].query) == ("t0ken", {"id": ["1"]})

    def test_of_a_container_is_not_asked_of_strangers(self, environ: dict[str, str], transport: Transport) -> None:
        with pytest.raises(InvalidInput, match=r"refused to ask evil\.example without https"):
            find_keys({**environ, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/x"}, transport)

    def test_of_an_instance(self, environ: dict[str, str], transport: Transport, aws: FakeRegistry) -> None:
        role = "/latest/meta-data/iam/security-credentials/"
        aws.on("PUT /latest/api/token", answer(200, b"t0ken"))
        aws.on(f"GET {role}$", answer(200, b"ci-role\n"))
        aws.on(f"GET {role}ci-role$", answer(200, json.dumps(ROLE_KEYS).encode()))
        del environ["AWS_EC2_METADATA_DISABLED"]
        found = find_keys({**environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.url}, transport)
        assert found is not None
        assert found.access_key_id == "ASIAROLE"
        assert aws.requests[0].headers["x-aws-ec2-metadata-token-ttl-seconds"] == "300"
        assert [request.headers.get("x-aws-ec2-metadata-token") for request in aws.requests[1:]] == ["t0ken", "t0ken"]

    @pytest.mark.parametrize("role", [b"", b"../../x", b"<html>"])
    def test_an_instance_without_a_role(
        self, environ: dict[str, str], transport: Transport, aws: FakeRegistry, role: bytes
    ) -> None:
        aws.on("PUT /latest/api/token", answer(200, b"t0ken"))
        aws.on("GET /latest/meta-data", answer(200, role))
        del environ["AWS_EC2_METADATA_DISABLED"]
        assert find_keys({**environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.url}, transport) is None
        assert len(aws.requests) == 2

    def test_no_instance(self, environ: dict[str, str], transport: Transport) -> None:
        del environ["AWS_EC2_METADATA_DISABLED"]
        nobody = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}
        assert find_keys({**environ, **nobody}, transport) is None

    def test_keys_are_asked_for_again_before_they_end(
        self, environ: dict[str, str], transport: Transport, aws: FakeRegistry
    ) -> None:
        aws.on("GET /x", answer(200, json.dumps(ROLE_KEYS).encode()), times=9)
        now = [IN_2100_S - 3600]
        said = {**environ, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{aws.url}/x"}
        identity = Identity(said, transport, lambda: now[0])
        assert identity.keys() == identity.keys()
        assert len(aws.requests) == 1
        now[0] = IN_2100_S - 30
        identity.keys()
        assert len(aws.requests) == 2
