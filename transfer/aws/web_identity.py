"""A role for a token that lies in a file (Kubernetes, CI). Spec: STS AssumeRoleWithWebIdentity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from image.errors import RegistryError
from transfer.aws.api import MAX_REPLY, endpoint, printable
from transfer.aws.said import decode_keys, text_of
from transfer.aws.signing import AwsKeys
from transfer.registry.transport import Transport
from transfer.registry.wire import Request


def keys_for_web_identity(
    says: Mapping[str, str], environ: Mapping[str, str], transport: Transport
) -> AwsKeys | None:  # fmt: skip
    """The keys of the role that ``says`` names; None when it names none. Raises InvalidInput, RegistryError."""
    file, role = says.get("AWS_WEB_IDENTITY_TOKEN_FILE"), says.get("AWS_ROLE_ARN")
    if not file or not role:
        return None
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    form = {
        "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": role,
        "RoleSessionName": says.get("AWS_ROLE_SESSION_NAME") or "tierce",
        "WebIdentityToken": text_of(Path(file), "web identity token").strip(),
    }  # fmt: skip
    usual = f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
    url = endpoint(environ, "sts", usual)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with transport.send(Request("POST", url, headers, urlencode(form).encode())) as reply:
        body = reply.read(MAX_REPLY).decode("utf-8", "replace")
        if reply.status != 200:
            words = printable(_element(body, "Message") or f"status {reply.status}")
            raise RegistryError(f"assume role {role} with a web identity: {words}", status=reply.status)
    return decode_keys(
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
