"""Amazon's registries, private and public: which names are theirs, tokens, and what their registries leave to an API.

Spec: Amazon ECR and ECR Public API references, GetAuthorizationToken, CreateRepository,
DescribeRepositories and BatchDeleteImage.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from image.digest import Digest
from image.errors import RegistryError
from image.value import dataclass, field
from transfer.aws.api import Api, call, endpoint, printable
from transfer.aws.identity import Identity
from transfer.aws.signing import AwsKeys, Scope
from transfer.registry.credential import Credential
from transfer.registry.transport import Transport

PUBLIC: Final = "public.ecr.aws"
_PRIVATE: Final = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?P<cn>\.cn)?\Z")  # fmt: skip
_LIFE_S: Final = 12 * 3600.0
_MARGIN_S: Final = 300.0
_PAGE: Final = 1000
_MAX_PAGES: Final = 1000


@dataclass(frozen=True, slots=True)
class EcrRegistry:
    """A registry of Amazon's. ``account`` is empty for the public one."""

    domain: str
    region: str
    account: str = ""
    api_host: str = ""

    def api(self, environ: Mapping[str, str]) -> Api:
        if not self.account:
            url = endpoint(environ, "ecr-public", f"https://{self.api_host}")
            return Api(url, Scope(self.region, "ecr-public"), "SpencerFrontendService")
        url = endpoint(environ, "ecr", f"https://{self.api_host}")
        return Api(url, Scope(self.region, "ecr"), "AmazonEC2ContainerRegistry_V20150921")


def ecr_registry(domain: str) -> EcrRegistry | None:
    """The registry that a host name is; None when it is none of Amazon's."""
    if domain == PUBLIC:
        return EcrRegistry(domain, "us-east-1", api_host="api.ecr-public.us-east-1.amazonaws.com")
    match = _PRIVATE.match(domain)
    if match is None:
        return None
    region = match["region"]
    service = f"ecr-fips.{region}" if match["fips"] else f"api.ecr.{region}"
    return EcrRegistry(domain, region, match["account"], f"{service}.amazonaws.com{match['cn'] or ''}")


@dataclass(frozen=True, slots=True)
class _Token:
    credential: Credential = field(repr=False)
    expires_s: float


class Ecr:
    """Tokens, kept for their life, and repositories, for one process. ``clock`` is in seconds since 1970."""

    def __init__(
        self, environ: Mapping[str, str], transport: Transport, clock: Callable[[], float] = time.time
    ) -> None:
        self._environ = environ
        self._transport = transport
        self._clock = clock
        self._identity = Identity(environ, transport, clock)
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}
        self._creating = threading.Lock()
        self._created: set[tuple[str, str]] = set()

    def credential(self, registry: EcrRegistry, *, push: bool = False) -> Credential | None:
        """What to log in with. None where the public registry may be asked without, and there is no identity.

        One request serves all registries of a region for 12 hours. Raises RegistryError when
        AWS gives no token, or a private registry needs one and nothing says who we are.
        """
        key = registry.api_host
        with self._lock:
            token = self._tokens.get(key)
            if token is None or token.expires_s - _MARGIN_S <= self._clock():
                optional = not registry.account and not push
                keys = self._keys(registry, optional=optional)
                if keys is None:
                    return None
                token = self._tokens[key] = self._fetch(registry, keys)
        return token.credential

    def _keys(self, registry: EcrRegistry, *, optional: bool) -> AwsKeys | None:
        keys = self._identity.keys(metadata=not optional)
        if keys is None and not optional:
            raise RegistryError(
                f"log in to registry {registry.domain}: nothing says who you are at AWS:"
                " set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give this machine a role"
            )
        return keys

    def _fetch(self, registry: EcrRegistry, keys: AwsKeys) -> _Token:
        answer = self._call(registry, "GetAuthorizationToken", {}, keys)
        found = answer.get("authorizationData")
        data: Any = found[0] if isinstance(found, list) and found else found
        try:
            username, colon, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        except (KeyError, TypeError, ValueError, binascii.Error):
            username = colon = password = ""
        if not colon:
            raise RegistryError(f"log in to registry {registry.domain}: AWS gave no token")
        expires = data.get("expiresAt")
        expires_s = float(expires) if isinstance(expires, int | float) else self._clock() + _LIFE_S
        return _Token(Credential(username, password), expires_s)

    def create_repository(self, registry: EcrRegistry, path: str) -> None:
        """Make a repository, once in this process; one that is there is right too. Raises RegistryError."""
        with self._creating:
            if (registry.domain, path) not in self._created:
                self._create(registry, path)
                self._created.add((registry.domain, path))

    def _create(self, registry: EcrRegistry, path: str) -> None:
        try:
            self._ask(registry, "CreateRepository", _of_repository(registry, path))
        except RegistryError as error:
            if "RepositoryAlreadyExistsException" not in error.codes:
                raise

    def repositories(self, registry: EcrRegistry) -> list[str]:
        """The names of all repositories of a private registry, which has no catalog. Raises RegistryError."""
        found: list[str] = []
        following: dict[str, Any] = {}
        for _ in range(_MAX_PAGES):
            request = {"registryId": registry.account, "maxResults": _PAGE, **following}
            answer = self._ask(registry, "DescribeRepositories", request)
            listed = answer.get("repositories")
            found += [
                name
                for entry in (listed if isinstance(listed, list) else [])
                if isinstance(entry, dict) and isinstance(name := entry.get("repositoryName"), str)
            ]
            token = answer.get("nextToken")
            if not isinstance(token, str) or not token:
                return found
            following = {"nextToken": token}
        raise RegistryError(f"list repositories of {registry.domain}: AWS's pages never end")

    def delete_image(self, registry: EcrRegistry, path: str, digest: Digest) -> None:
        """Delete a manifest and its tags: the registry itself does not. Raises RegistryError."""
        request = {**_of_repository(registry, path), "imageIds": [{"imageDigest": str(digest)}]}
        failures = self._ask(registry, "BatchDeleteImage", request).get("failures")
        first = failures[0] if isinstance(failures, list) and failures else None
        if isinstance(first, dict) and first.get("failureCode") != "ImageNotFound":
            words = printable(str(first.get("failureReason") or first.get("failureCode") or "refused"))
            raise RegistryError(f"delete {digest} from {registry.domain}/{path}: {words}")

    def _ask(self, registry: EcrRegistry, action: str, document: Mapping[str, Any]) -> dict[str, Any]:
        keys = self._keys(registry, optional=False)
        assert keys is not None, "an identity that is not optional is found or an error"
        return self._call(registry, action, document, keys)

    def close(self) -> None:
        self._transport.close()

    def _call(self, registry: EcrRegistry, action: str, document: Mapping[str, Any], keys: AwsKeys) -> dict[str, Any]:
        return call(self._transport, registry.api(self._environ), action, document, keys, self._clock)


def _of_repository(registry: EcrRegistry, path: str) -> dict[str, Any]:
    """In the public registry the first part of a path is the account's alias."""
    if registry.account:
        return {"repositoryName": path, "registryId": registry.account}
    return {"repositoryName": path.partition("/")[2] or path}
