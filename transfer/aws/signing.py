"""AWS Signature Version 4, as far as requests to an API with a plain path need it. Pure.

Spec: AWS "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from image.value import dataclass, field

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Who we are at AWS. Secrets stay out of ``repr``; ``expires_s`` is in seconds since 1970, None is never."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for."""

    region: str
    service: str


def signed_headers(
    keys: AwsKeys, scope: Scope, method: str, url: str, headers: Mapping[str, str], body: bytes, now_s: float
) -> dict[str, str]:
    """``headers`` with a date, the session's token and an Authorization that covers them all, and Host."""
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": moment}
    if keys.session_token:
        sent["X-Amz-Security-Token"] = keys.session_token
    covered = {name.lower(): _trimmed(value) for name, value in sent.items()} | {"host": urlsplit(url).netloc}
    names = ";".join(sorted(covered))
    request = "\n".join(
        (
            method.upper(),
            quote(urlsplit(url).path or "/", safe="/-_.~%"),
            _canonical_query(urlsplit(url).query),
            *(f"{name}:{covered[name]}" for name in sorted(covered)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    day = f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"
    to_sign = "\n".join((_ALGORITHM, moment, day, hashlib.sha256(request.encode()).hexdigest()))
    signature = hmac.new(_key(keys, scope, moment[:8]), to_sign.encode(), "sha256").hexdigest()
    credential = f"{keys.access_key_id}/{day}"
    sent["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return sent


def _trimmed(value: str) -> str:
    return re.sub(" +", " ", value.strip())


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))


def _key(keys: AwsKeys, scope: Scope, day: str) -> bytes:
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
