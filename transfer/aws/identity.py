"""Who the user is at AWS, looked for where AWS's own programs look, in their order.

The environment, a web identity (Kubernetes), a profile in ``~/.aws`` (``profiles.py``), the
container's role, the instance's role.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from image.errors import InvalidInput, RegistryError
from transfer.aws.api import MAX_REPLY
from transfer.aws.profiles import keys_of_profile
from transfer.aws.said import decode_keys, object_of, text_of
from transfer.aws.signing import AwsKeys
from transfer.aws.web_identity import keys_for_web_identity
from transfer.registry.transport import Timeouts, Transport
from transfer.registry.wire import Request, is_loopback

_CONTAINER: Final = "http://169.254.170.2"
_CONTAINER_HOSTS: Final = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_INSTANCE: Final = "http://169.254.169.254"
_ROLE: Final = "/latest/meta-data/iam/security-credentials/"
_NEARBY: Final = Timeouts(connect_s=1.0, idle_s=2.0, total_s=5.0)
"""Metadata services answer at once, or are not there."""


def find_keys(environ: Mapping[str, str], transport: Transport, *, metadata: bool = True) -> AwsKeys | None:
    """The first identity there is; None without any. ``metadata`` False asks no container's or instance's role.

    Raises InvalidInput for files that can't be used, RegistryError when a service refuses.
    """
    return (
        _from_environment(environ)
        or keys_for_web_identity(environ, environ, transport)
        or keys_of_profile(environ, transport)
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
        token = text_of(Path(file), "container token").strip()
    answer = _Metadata(f"{parts.scheme}://{parts.netloc}").get(
        url.removeprefix(f"{parts.scheme}://{parts.netloc}"), {"Authorization": token} if token else {}
    )
    return decode_keys(object_of(answer, host), "the container's role")


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
    return decode_keys(object_of(answer, "the metadata service"), f"instance role {role}")


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
