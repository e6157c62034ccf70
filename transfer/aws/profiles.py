"""Keys by a profile of ``~/.aws``: written there, from a web identity, a program or single sign-on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from image.errors import InvalidInput, RegistryError
from transfer.aws.api import MAX_REPLY, endpoint, printable
from transfer.aws.said import decode_keys, object_of, text_of
from transfer.aws.signing import AwsKeys
from transfer.aws.web_identity import keys_for_web_identity
from transfer.registry.transport import Transport
from transfer.registry.wire import Request

_NOT_DONE: Final = ("source_profile", "credential_source")
_PROCESS_S: Final = 60.0
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")


def keys_of_profile(environ: Mapping[str, str], transport: Transport) -> AwsKeys | None:
    """The keys of AWS_PROFILE, or of the default one; None when there is none. Raises InvalidInput, RegistryError."""
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
    if keys := keys_for_web_identity(said, environ, transport):
        return keys
    if command := profile.get("credential_process"):
        return _from_process(command, name, environ)
    if profile.get("sso_account_id") or profile.get("sso_session"):
        session = _section(config, f"sso-session {profile['sso_session']}") if profile.get("sso_session") else {}
        return _signed_on({**profile, **session}, name, environ, transport)
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
        parser.read_string(text_of(file, "AWS profile") if file.exists() else "")
    except Error as error:
        line = getattr(error, "lineno", None) or next((number for number, _ in getattr(error, "errors", ())), 0)
        raise InvalidInput(f"read {file}:{line}: not a file of AWS profiles") from None
    return dict(parser.items(name)) if parser.has_section(name) else {}


def _from_process(command: str, name: str, environ: Mapping[str, str]) -> AwsKeys:
    """What a program prints, run without a shell. Nothing of its output gets into an error."""
    import subprocess

    what = f"credential_process of AWS profile {name!r}"
    try:
        argv = shlex.split(command)
        done = subprocess.run(
            argv, capture_output=True, stdin=subprocess.DEVNULL, env=dict(environ), timeout=_PROCESS_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"{what}: no answer in {_PROCESS_S:g} s") from None
    except (OSError, ValueError, IndexError) as error:
        raise InvalidInput(f"{what}: can't be run: {getattr(error, 'strerror', None) or 'not a command'}") from None
    if done.returncode != 0:
        raise InvalidInput(f"{what}: failed with exit code {done.returncode}")
    said = object_of(done.stdout[:MAX_REPLY].decode("utf-8", "replace"), what)
    if said.get("Version") != 1:
        raise InvalidInput(f"{what}: its reply is not of version 1")
    return decode_keys({**said, "Token": said.get("SessionToken")}, what)


def _signed_on(
    profile: Mapping[str, str], name: str, environ: Mapping[str, str], transport: Transport
) -> AwsKeys:  # fmt: skip
    """The keys of a role for the token that ``aws sso login`` left. Spec: SSO GetRoleCredentials."""
    what = f"AWS profile {name!r}"
    missing = [
        key for key in ("sso_start_url", "sso_region", "sso_account_id", "sso_role_name") if not profile.get(key)
    ]
    if missing or not _REGION.fullmatch(profile["sso_region"]):
        raise InvalidInput(f"{what} signs on without a valid {(missing or ['sso_region'])[0]}")
    token = _sign_on_token(profile, name, environ)
    url = endpoint(environ, "sso", f"https://portal.sso.{profile['sso_region']}.amazonaws.com")
    query = urlencode({"role_name": profile["sso_role_name"], "account_id": profile["sso_account_id"]})
    request = Request("GET", f"{url}federation/credentials?{query}", {"x-amz-sso_bearer_token": token})
    with transport.send(request) as reply:
        text = reply.read(MAX_REPLY).decode("utf-8", "replace")
        if reply.status == 401:
            raise InvalidInput(f"{what}: its sign-on has ended: run aws sso login --profile {name}")
        said = object_of(text, "AWS's single sign-on")
        if reply.status != 200:
            words = printable(str(said.get("message") or f"status {reply.status}"))
            raise RegistryError(f"sign on as {profile['sso_role_name']}: {words}", status=reply.status)
    keys = said.get("roleCredentials")
    keys = keys if isinstance(keys, dict) else {}
    expires = keys.get("expiration")
    return decode_keys(
        {
            "AccessKeyId": keys.get("accessKeyId"),
            "SecretAccessKey": keys.get("secretAccessKey"),
            "Token": keys.get("sessionToken"),
            "Expiration": _iso(expires / 1000) if isinstance(expires, int) else "",
        },
        f"role {profile['sso_role_name']}",
    )


def _sign_on_token(profile: Mapping[str, str], name: str, environ: Mapping[str, str]) -> str:
    """The token in the file that is called for the session, or for its address."""
    key = profile.get("sso_session") or profile["sso_start_url"]
    called = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
    file = Path(environ.get("HOME", "/"), ".aws/sso/cache", f"{called}.json")
    again = f"AWS profile {name!r}: nobody is signed on: run aws sso login --profile {name}"
    if not file.exists():
        raise InvalidInput(again)
    try:
        said = json.loads(text_of(file, "sign-on"))
        token, expires = said["accessToken"], datetime.fromisoformat(said["expiresAt"].replace("UTC", "Z"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(again) from None
    if expires.replace(tzinfo=expires.tzinfo or UTC) <= datetime.now(UTC):
        raise InvalidInput(again)
    return str(token)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
