"""Requests to AWS: where an API is, one signed call, and what a refusal means."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from image.errors import RegistryError
from image.value import dataclass
from transfer.aws.signing import AwsKeys, Scope, signed_headers
from transfer.registry.retry import Retry
from transfer.registry.transport import Reply, Transport
from transfer.registry.wire import Request, redact, temporary

MAX_REPLY: Final = 1 << 20
_UNKNOWN_KEYS: Final = frozenset({
    "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "InvalidClientTokenId",
    "IncompleteSignature", "MissingAuthenticationTokenException",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Api:
    """One of AWS's APIs that speaks JSON. ``target`` is what its actions' names follow."""

    url: str
    scope: Scope
    target: str


def endpoint(environ: Mapping[str, str], service: str, usual: str) -> str:
    """AWS_ENDPOINT_URL_<SERVICE> or AWS_ENDPOINT_URL where set, as for AWS's own programs; else ``usual``."""
    variable = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
    return (environ.get(variable) or environ.get("AWS_ENDPOINT_URL") or usual).rstrip("/") + "/"


def call(
    transport: Transport,
    api: Api,
    action: str,
    document: Mapping[str, Any],
    keys: AwsKeys,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """The reply to one action. Raises RegistryError, with AWS's name of the error in ``codes``."""
    body = json.dumps(document).encode()
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{api.target}.{action}"}

    def send() -> dict[str, Any]:
        signed = signed_headers(keys, api.scope, "POST", api.url, headers, body, clock())
        with transport.send(Request("POST", api.url, signed, body)) as reply:
            answer = _decoded(reply, action)
            if reply.status != 200:
                _refuse(reply, action, api, answer)
            return answer

    return Retry(attempts=3, sleep=transport.sleep).call(send)


def _decoded(reply: Reply, action: str) -> dict[str, Any]:
    try:
        answer = json.loads(reply.read(MAX_REPLY) or b"{}")
    except (ValueError, RecursionError):
        answer = {} if reply.status != 200 else None
    if isinstance(answer, dict):
        return answer
    raise RegistryError(f"{action} at AWS: the reply is not a JSON object", url=redact(reply.url), status=reply.status)


def _refuse(reply: Reply, action: str, api: Api, answer: Mapping[str, Any]) -> NoReturn:
    code = str(answer.get("__type", "")).rpartition("#")[2]
    words = printable(str(answer.get("message") or answer.get("Message") or code or f"status {reply.status}"))
    if code in _UNKNOWN_KEYS:
        words = f"AWS does not accept these credentials ({words})"
    raise RegistryError(
        f"{action} of {api.scope.service} in {api.scope.region}: {words}",
        method="POST", url=redact(reply.url), status=reply.status, codes=[code] if code else [],
        temporary=temporary(reply.status) or code in {"ThrottlingException", "ServerException"},
    )  # fmt: skip


def printable(text: str) -> str:
    """Words of a server, fit for a message."""
    return "".join(c for c in text if c.isprintable())[:300]
