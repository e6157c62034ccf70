"""What tests of AWS share: keys in an environment, a server that plays AWS, and moto, which checks signatures."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.process import daemon, free_port
from transfer.aws.signing import AwsKeys, Scope, signed_headers
from transfer.registry.transport import Transport


@pytest.fixture
def aws() -> Iterator[FakeRegistry]:
    """A web server that answers what its rules say."""
    with fake_registry() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport({}, peer="AWS")
    yield made
    made.close()


@dataclass(frozen=True, slots=True)
class Moto:
    """AWS's APIs in a process of their own. ``environ`` has a user's keys; wrong signatures are refused."""

    url: str
    environ: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="package")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    pytest.importorskip("moto", reason="needs moto (pip install .[dev])")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    directory = tmp_path_factory.mktemp("moto")

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5):
                return True
        except OSError:
            return False

    argv: list[str | Path] = [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with daemon(argv, log=directory / "log", ready=answers):
        keys = _make_user(url)
        _check_from(url, "0")
        yield Moto(url, {
            "AWS_ENDPOINT_URL": url, "HOME": str(directory), "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1],
        })  # fmt: skip


@pytest.fixture
def open_moto(moto: Moto) -> Iterator[Moto]:
    """For calls that nobody signs."""
    _check_from(moto.url, "inf")
    yield moto
    _check_from(moto.url, "0")


def _check_from(url: str, number: str) -> None:
    """From this call on user, policy and signature are checked, as AWS does."""
    _post(f"{url}/moto-api/reset-auth", {"Content-Type": "text/plain"}, number.encode())


def _make_user(url: str) -> tuple[str, str]:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}]}
    _iam(url, "CreateUser", UserName="ci")
    _iam(url, "PutUserPolicy", UserName="ci", PolicyName="ecr", PolicyDocument=json.dumps(policy))
    made = _iam(url, "CreateAccessKey", UserName="ci")
    found = [re.search(f"<{name}>(.*?)</{name}>", made) for name in ("AccessKeyId", "SecretAccessKey")]
    assert found[0], made
    assert found[1], made
    return found[0][1], found[1][1]


def _iam(url: str, action: str, **form: str) -> str:
    body = urlencode({"Action": action, "Version": "2010-05-08", **form}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    scope = Scope("us-east-1", "iam")
    return _post(f"{url}/", signed_headers(AwsKeys("any", "any"), scope, "POST", f"{url}/", headers, body, 0), body)


def _post(url: str, headers: Mapping[str, str], body: bytes) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, body, dict(headers)), timeout=30) as reply:
        return str(reply.read().decode())
