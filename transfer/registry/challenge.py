"""How a registry wants to be asked: the ping, its challenges, and tokens.

One ``Authorizer`` stands for one registry as one user. It pings once, answers Basic
challenges from the credential, and fetches Bearer tokens, one for each set of scopes; a
token is fetched by one thread while the others wait for it.

Spec: distribution-spec, "Authentication"; Docker "Token Authentication" and OAuth2 forms.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlencode, urlsplit

from image.errors import InvalidInput, RegistryError
from image.value import dataclass, field
from transfer.registry.credential import ANONYMOUS, Credential
from transfer.registry.replies import RateLimit, problems, retry_after_s
from transfer.registry.transport import Reply, Transport
from transfer.registry.wire import (
    Challenge,
    Request,
    challenges,
    covers,
    is_loopback,
    is_private,
    origin,
    redact,
    registry_host,
    temporary,
)

__all__ = ("ANONYMOUS", "Authorizer", "Credential", "check_realm", "unexpected")

_MAX_TOKEN_SIZE: Final = 1 << 20
_SHORTEST_LIFE_S: Final = 60.0
"""What a token lives when the server does not say, and the least that is believed."""
_MARGIN_S: Final = 10.0
_CLIENT_ID: Final = "tierce"


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    expires_s: float


class Authorizer:
    """Gives the Authorization header for a set of scopes; ``clock`` is wall time in seconds."""

    def __init__(
        self,
        domain: str,
        transport: Transport,
        credential: Credential = ANONYMOUS,
        *,
        insecure: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.domain = domain
        self.credential = credential
        self._transport = transport
        self._insecure = insecure
        self._clock = clock
        self._lock = threading.Lock()
        self._base = ""
        self._challenges: tuple[Challenge, ...] = ()
        self._tokens: dict[frozenset[str], _Token] = {}
        self._flights: dict[frozenset[str], threading.Lock] = {}
        self._identity_token = credential.identity_token
        self.rate_limit: RateLimit | None = None
        """What the registry said last about pulls; its sessions write it."""

    @property
    def user(self) -> str:
        return self.credential.username or ("the stored token" if self.credential != ANONYMOUS else "anonymous")

    @property
    def realms(self) -> tuple[str, ...]:
        """Where the registry says that tokens come from, once it was asked."""
        return tuple(challenge.get("realm") for challenge in self._challenges)

    def base(self) -> str:
        """``scheme://host`` of the registry, found by the first call.

        Plain http is tried only for this machine or when ``insecure`` was asked for.
        Raises RegistryError when it can't be reached or is no registry.
        """
        with self._lock:
            if not self._base:
                self._base = self._ping()
            return self._base

    def _ping(self) -> str:
        host = registry_host(self.domain)
        name = urlsplit(f"//{host}").hostname or host
        # A program on this machine that speaks plain http may hang on a TLS greeting.
        schemes = ["http", "https"] if is_loopback(name) else ["https", "http"] if self._insecure else ["https"]
        first: RegistryError | None = None
        for scheme in schemes:
            try:
                if self._ping_at(f"{scheme}://{host}"):
                    return f"{scheme}://{host}"
            except RegistryError as error:
                if first is None or scheme == "https":
                    first = error
        raise first or RegistryError(
            f"reach registry {self.domain}: it does not answer as a registry (distribution-spec v2)",
            method="GET", url=f"{schemes[0]}://{host}/v2/",
        )  # fmt: skip

    def _ping_at(self, base: str) -> bool:
        with self._transport.send(Request("GET", f"{base}/v2/")) as reply:
            if reply.status in {429, 503}:
                raise unexpected(reply, f"reach registry {self.domain}", self._clock())
            if reply.status not in {200, 401}:
                return False
            self._challenges = tuple(challenges(reply.headers))
            return True

    def check(self) -> None:
        """Ask the registry whether it knows this user. Raises RegistryError when it does not."""
        header = self.header(())
        headers = {"Authorization": header} if header else {}
        with self._transport.send(Request("GET", f"{self.base()}/v2/", headers)) as reply:
            if reply.status == 401:
                raise self.wrong_password(reply)
            if reply.status != 200:
                raise unexpected(reply, f"log in to registry {self.domain}", self._clock())

    def header(self, scopes: Iterable[str]) -> str:
        """The Authorization value that opens ``scopes``, or "" where none is needed."""
        self.base()
        if self.credential.registry_token:
            return f"Bearer {self.credential.registry_token}"
        if any(challenge.scheme == "bearer" for challenge in self._challenges):
            return f"Bearer {self._token(frozenset(scopes))}"
        if self.credential.username and any(challenge.scheme == "basic" for challenge in self._challenges):
            return self.credential.basic
        return ""

    def forget(self, scopes: Iterable[str]) -> None:
        """Drop what was given for these scopes, as the registry no longer takes it."""
        wanted = frozenset(scopes)
        with self._lock:
            self._tokens = {known: token for known, token in self._tokens.items() if not covers(known, wanted)}

    def learn(self, found: Iterable[Challenge]) -> None:
        """Challenges of a 401 where the ping was open to everybody."""
        if not self._challenges:
            self._challenges = tuple(found)

    def _token(self, scopes: frozenset[str]) -> str:
        with self._lock:
            flight = self._flights.setdefault(scopes, threading.Lock())
        with flight:
            known = self._known(scopes)
            if known is None:
                known = self._fetch(scopes)
                with self._lock:
                    self._tokens[scopes] = known
            return known.value

    def _known(self, scopes: frozenset[str]) -> _Token | None:
        """A token that lives on for a while and was asked for with these scopes, or with more."""
        with self._lock:
            tokens = sorted(self._tokens.items(), key=lambda item: item[0] != scopes)
        fresh = ((known, token) for known, token in tokens if token.expires_s - _MARGIN_S > self._clock())
        return next((token for known, token in fresh if known == scopes or covers(known, scopes)), None)

    # The token server

    def _fetch(self, scopes: frozenset[str]) -> _Token:
        challenge = next(challenge for challenge in self._challenges if challenge.scheme == "bearer")
        realm = challenge.get("realm")
        check_realm(self._base, realm)
        wanted = sorted(scopes)
        with self._ask(realm, challenge.get("service"), wanted) as reply:
            if reply.status != 200:
                raise self._refused(reply)
            return self._decode(reply.read(_MAX_TOKEN_SIZE))

    def _ask(self, realm: str, service: str, scopes: list[str]) -> Reply:
        if self._identity_token:
            form = {
                "grant_type": "refresh_token", "refresh_token": self._identity_token, "service": service,
                "client_id": _CLIENT_ID, "scope": " ".join(scopes), "access_type": "offline",
            }  # fmt: skip
            request = Request(
                "POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode()
            )
            reply = self._transport.send(request)
            if reply.status not in {404, 405}:
                return reply
            reply.close()
        return self._transport.send(self._get_form(realm, service, scopes))

    def _get_form(self, realm: str, service: str, scopes: list[str]) -> Request:
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if self.credential.username or self._identity_token:
            query.append(("account", self.credential.username or "<token>"))
            secret = self.credential.password or self._identity_token
            headers["Authorization"] = Credential(self.credential.username or "<token>", secret).basic
        separator = "&" if urlsplit(realm).query else "?"
        return Request("GET", f"{realm}{separator}{urlencode(query)}", headers)

    def _decode(self, body: bytes) -> _Token:
        try:
            document = json.loads(body)
            value = document.get("token") or document.get("access_token")
            life = document.get("expires_in")
            renewed = document.get("refresh_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise RegistryError(f"log in to registry {self.domain}: the token server's reply is not JSON") from error
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise RegistryError(f"log in to registry {self.domain}: the token server gave no token")
        if isinstance(renewed, str) and renewed and self._identity_token:
            self._identity_token = renewed
        # Our clock decides, not the server's issued_at: theirs may be wrong by more than a token's life.
        life_s = float(life) if isinstance(life, int) and not isinstance(life, bool) else 0.0
        return _Token(value, self._clock() + max(life_s, _SHORTEST_LIFE_S))

    def _refused(self, reply: Reply) -> RegistryError:
        # A refresh token that is unknown is a bad request (RFC 6749); a password never is.
        unknown = {400, 401, 403} if self._identity_token else {401, 403}
        if reply.status in unknown and self.credential != ANONYMOUS:
            return self.wrong_password(reply)
        return unexpected(reply, f"log in to registry {self.domain}", self._clock())

    def wrong_password(self, reply: Reply) -> RegistryError:
        """The registry does not know who we say we are."""
        advice = f"wrong user name or password: run 'tierce login {self.domain}'"
        return RegistryError(
            f"log in to registry {self.domain} as {self.user}: {advice}",
            method=reply.method, url=redact(reply.url), status=reply.status,
        )  # fmt: skip


def check_realm(base: str, realm: str) -> None:
    """Refuse a token server that a registry has no business to send credentials to.

    It must be https for an https registry, and no private address unless the registry is
    one itself. Raises RegistryError.
    """
    registry = origin(base)
    try:
        server = origin(realm)
    except InvalidInput as error:
        raise RegistryError(f"log in to registry {registry.netloc}: it names no token server") from error
    if registry.scheme == "https" and server.scheme != "https":
        raise RegistryError(
            f"log in to registry {registry.netloc}: refused a token server without https", url=redact(realm)
        )
    if is_private(server.host) and server != registry and not is_private(registry.host):
        raise RegistryError(
            f"log in to registry {registry.netloc}: refused a token server at the private address {server.host}",
            url=redact(realm),
        )


def unexpected(reply: Reply, what: str, now_s: float) -> RegistryError:
    """A reply that is no answer, in the registry's own words where it has some."""
    found = problems(reply.error_body())
    words = "; ".join(filter(None, (problem.message or problem.code for problem in found)))
    if reply.status == 429:
        reason = "too many requests" + (f" ({words})" if words else "") + ": wait, or log in for a higher limit"
    else:
        reason = f"the registry answered {reply.status}" + (f": {words}" if words else "")
    return RegistryError(
        f"{what}: {reason}",
        method=reply.method, url=redact(reply.url), status=reply.status,
        codes=[problem.code for problem in found if problem.code],
        words=words, temporary=temporary(reply.status), retry_after_s=retry_after_s(reply.headers, now_s),
    )  # fmt: skip
