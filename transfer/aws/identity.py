"""Who the user is at AWS, looked for where AWS's own programs look, in their order.

The environment, a web identity (Kubernetes), a profile in ``~/.aws``, the container's role,
the instance's role. Programs and single sign-on in a profile are told, not done.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from image.errors import InvalidInput, RegistryError
from transfer.aws.api import MAX_REPLY, endpoint, printable
from transfer.aws.signing import AwsKeys
from transfer.registry.transport import Timeouts, Transport
from transfer.registry.wire import Request, is_loopback

_CONTAINER: Final = "http://169.254.170.2"
_CONTAINER_HOSTS: Final = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_INSTANCE: Final = "http://169.254.169.254"
_ROLE: Final = "/latest/meta-data/iam/security-credentials/"
_NEARBY: Final = Timeouts(connect_s=1.0, idle_s=2.0, total_s=5.0)
"""Metadata services answer at once, or are not there."""
_MAX_FILE: Final = 1 << 20
_NOT_DONE: Final = ("credential_process", "sso_session", "sso_start_url", "source_profile", "credential_source")


def find_keys(environ: Mapping[str, str], transport: Transport, *, metadata: bool = True) -> AwsKeys | None:
    """The first identity there is; None without any. ``metadata`` False asks no container's or instance's role.

    Raises InvalidInput for files that can't be used, RegistryError when a service refuses.
    """
    return (
        _from_environment(environ)
        or _from_web_identity(environ, environ, transport)
        or _from_profile(environ, transport)
        or (_from_container(environ) if metadata else None)
        or (_from_instance(environ) if metadata else None)
    )


def _from_environment(environ: Mapping[str, str]) -> AwsKeys | None:
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not key:
        return None
    if not secret:
        raise InvalidInput("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not")
    return AwsKeys(key, secret, environ.get("AWS_SESSION_TOKEN", ""))


# Web identity


def _from_web_identity(
    says: Mapping[str, str], environ: Mapping[str, str], transport: Transport
) -> AwsKeys | None:  # fmt: skip
    """A role for a token that lies in a file. Spec: STS AssumeRoleWithWebIdentity."""
    file, role = says.get("AWS_WEB_IDENTITY_TOKEN_FILE"), says.get("AWS_ROLE_ARN")
    if not file or not role:
        return None
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    form = {
        "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": role,
        "RoleSessionName": says.get("AWS_ROLE_SESSION_NAME") or "tierce",
        "WebIdentityToken": _text(Path(file), "web identity token").strip(),
    }  # fmt: skip
    usual = f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
    url = endpoint(environ, "sts", usual)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with transport.send(Request("POST", url, headers, urlencode(form).encode())) as reply:
        body = reply.read(MAX_REPLY).decode("utf-8", "replace")
        if reply.status != 200:
            words = printable(_element(body, "Message") or f"status {reply.status}")
            raise RegistryError(f"assume role {role} with a web identity: {words}", status=reply.status)
    return _decode_keys(
        {
            "AccessKeyId": _element(body, "AccessKeyId"),
            "SecretAccessKey": _element(body, "SecretAccessKey"),
            "Token": _element(body, "SessionToken"),
            "Expiration": _element(body, "Expiration"),
        },
        f"role {role}",
    )


def _element(xml: str, name: str) -> str:
    """The text of the only element of a name in STS's replies, which need no more of XML than this."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", xml)
    return found[1] if found else ""


# Profiles


def _from_profile(environ: Mapping[str, str], transport: Transport) -> AwsKeys | None:
    home = environ.get("HOME", "/")
    name = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    credentials = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, ".aws/credentials"))
    config = Path(environ.get("AWS_CONFIG_FILE") or os.path.join(home, ".aws/config"))
    section = "default" if name == "default" else f"profile {name}"
    profile = {**_section(config, section), **_section(credentials, name)}
    if not profile and name != "default":
        raise InvalidInput(f"AWS profile {name!r} is neither in {credentials} nor in {config}")
    if key := profile.get("aws_access_key_id"):
        secret = profile.get("aws_secret_access_key")
        if not secret:
            raise InvalidInput(f"AWS profile {name!r} has aws_access_key_id without aws_secret_access_key")
        return AwsKeys(key, secret, profile.get("aws_session_token", ""))
    said = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": profile.get("web_identity_token_file", ""),
        "AWS_ROLE_ARN": profile.get("role_arn", ""),
        "AWS_ROLE_SESSION_NAME": profile.get("role_session_name", ""),
    }
    if keys := _from_web_identity(said, environ, transport):
        return keys
    if unknown := next((key for key in _NOT_DONE if key in profile), ""):
        raise InvalidInput(
            f"AWS profile {name!r} uses {unknown}, which is not supported:"
            ' run eval "$(aws configure export-credentials --format env)" first'
        )
    return None


def _section(file: Path, name: str) -> Mapping[str, str]:
    from configparser import Error, RawConfigParser

    parser = RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(_text(file, "AWS profile") if file.exists() else "")
    except Error as error:
        line = getattr(error, "lineno", None) or next((number for number, _ in getattr(error, "errors", ())), 0)
        raise InvalidInput(f"read {file}:{line}: not a file of AWS profiles") from None
    return dict(parser.items(name)) if parser.has_section(name) else {}


def _text(file: Path, what: str) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_FILE).decode()
    except OSError as error:
        raise InvalidInput(f"read {what} {file}: {(error.strerror or '').lower()}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"read {what} {file}: not UTF-8") from error


# Roles of a container and of an instance


def _from_container(environ: Mapping[str, str]) -> AwsKeys | None:
    """What ECS and EKS tell a container about its role."""
    relative, full = (environ.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL"))
    url = f"{_CONTAINER}{relative}" if relative else full
    if not url:
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" and host not in _CONTAINER_HOSTS and not is_loopback(host):
        raise InvalidInput(f"AWS_CONTAINER_CREDENTIALS_FULL_URI: refused to ask {host} without https")
    token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if file := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        token = _text(Path(file), "container token").strip()
    answer = _Metadata(f"{parts.scheme}://{parts.netloc}").get(
        url.removeprefix(f"{parts.scheme}://{parts.netloc}"), {"Authorization": token} if token else {}
    )
    return _decode_keys(_json(answer, host), "the container's role")


def _from_instance(environ: Mapping[str, str]) -> AwsKeys | None:
    """The role of the machine, by the second version of the metadata service. None away from EC2."""
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    service = _Metadata((environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _INSTANCE).rstrip("/"))
    try:
        token = service.get("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "300"}, method="PUT")
        headers = {"X-aws-ec2-metadata-token": token.strip()}
        role = (service.get(_ROLE, headers).splitlines() or [""])[0].strip()
        if not re.fullmatch(r"[\w+=,.@-]+", role):
            return None
        answer = service.get(_ROLE + role, headers)
    except RegistryError:
        return None
    return _decode_keys(_json(answer, "the metadata service"), f"instance role {role}")


class _Metadata:
    """A service beside us, never reached through a proxy."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._transport = Transport({}, timeouts=_NEARBY, peer="metadata service")

    def get(self, path: str, headers: Mapping[str, str], *, method: str = "GET") -> str:
        try:
            with self._transport.send(Request(method, self._base + path, headers)) as reply:
                body = reply.read(MAX_REPLY)
                if reply.status != 200:
                    raise RegistryError(f"ask {self._base} for credentials: status {reply.status}", status=reply.status)
                return body.decode("utf-8", "replace")
        finally:
            self._transport.close()


def _json(text: str, who: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryError(f"ask {who} for credentials: the reply is not a JSON object")
    return document


def _decode_keys(document: Mapping[str, Any], what: str) -> AwsKeys:
    key, secret, token = (document.get(name) or "" for name in ("AccessKeyId", "SecretAccessKey", "Token"))
    if not all(isinstance(each, str) for each in (key, secret, token)) or not key or not secret:
        raise RegistryError(f"credentials of {what}: the reply has no keys")
    try:
        expires_s = datetime.fromisoformat(str(document["Expiration"])).timestamp()
    except (KeyError, ValueError):
        expires_s = None
    return AwsKeys(key, secret, token, expires_s)


class Identity:
    """The keys of this process, found once and again when they are about to end."""

    def __init__(
        self, environ: Mapping[str, str], transport: Transport, clock: Callable[[], float] = time.time
    ) -> None:
        self._environ = environ
        self._transport = transport
        self._clock = clock
        self._keys: AwsKeys | None = None

    def keys(self, *, metadata: bool = True) -> AwsKeys | None:
        """See ``find_keys``."""
        known = self._keys
        if known is None or (known.expires_s is not None and known.expires_s - 60 <= self._clock()):
            self._keys = find_keys(self._environ, self._transport, metadata=metadata)
        return self._keys
