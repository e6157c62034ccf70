"""Requests about one repository: authorized, repeated, and refused in a user's words.

The parts of a ``Repository`` (manifests, blobs, uploads, lists, referrers) stand on this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

from image.digest import Digest
from image.errors import InvalidDigest, ReferenceNotFound, RegistryError
from image.value import replace
from transfer.registry import replies, wire
from transfer.registry.challenge import Authorizer, unexpected
from transfer.registry.profiles import QUAY, Profile, profile_for
from transfer.registry.retry import Retry
from transfer.registry.transport import Body, Reply, Transport
from transfer.registry.wire import Request

_T = TypeVar("_T")

Verb = Literal["pull from", "push to", "delete from", "list tags of", "list repositories of"]
"""What was attempted, as messages say it."""


class Session:
    """``path`` at a registry, asked for with ``actions`` (``pull``, or ``pull`` and ``push``).

    ``create`` makes the repository where a push finds that it is missing. ``upstream`` is the
    registry whose names are asked for where this one mirrors it: a mirror of several is told so.
    """

    def __init__(
        self,
        path: str,
        authorizer: Authorizer,
        transport: Transport,
        *,
        actions: tuple[str, ...] = ("pull",),
        retry: Retry | None = None,
        warn: Callable[[str], None] = lambda _text: None,
        clock: Callable[[], float] = time.time,
        profile: Profile | None = None,
        create: Callable[[], None] | None = None,
        upstream: str = "",
    ) -> None:
        self.path = path
        self.domain = authorizer.domain
        self.transport = transport
        self.retry = retry or Retry(sleep=transport.sleep)
        self.profile = profile or profile_for(authorizer.domain)
        self._create = create
        self._upstream = upstream
        self._authorizer = authorizer
        self._warn = warn
        self._clock = clock
        self._scopes: tuple[str, ...] = (wire.repository_scope(path, actions),)
        self._verb: Verb = "push to" if "push" in actions else "pull from" if actions == ("pull",) else "delete from"

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def rate_limit(self) -> replies.RateLimit | None:
        """What the registry said last about this user's pulls; None when it says nothing."""
        return self._authorizer.rate_limit

    @property
    def pulls_left(self) -> int | None:
        """How many pulls the registry said last that remain; None where it says nothing."""
        return self.rate_limit.remaining if self.rate_limit else None

    @property
    def is_quay(self) -> bool:
        """Whether this is Quay, also one that runs elsewhere: where its tokens come from tells."""
        return self.profile is QUAY or any(realm.endswith("/v2/auth") for realm in self._authorizer.realms)

    def warn(self, text: str) -> None:
        """Tell the user something about this registry, once."""
        self._warn(f"{self.domain}: {text}")

    def _base(self) -> str:
        return self._authorizer.base()

    def _repeat(self, action: Callable[[], _T]) -> _T:
        return self.retry.call(action)

    # Sending

    def _send(
        self,
        request: Request,
        scopes: tuple[str, ...] | None = None,
        *,
        body: Body | None = None,
        size: int | None = 0,
    ) -> Reply:
        """Send with authorization; a login that ended is renewed once, unless a body went with it."""
        wanted = self._scopes if scopes is None else scopes
        if self._upstream and request.method in {"GET", "HEAD"} and self._is_ours(request.url):
            request = replace(request, url=wire.with_query(request.url, ns=self._upstream))
        authorized = self._authorized(request, wanted)
        reply = self._exchange(authorized, body, size)
        offered = wire.challenges(reply.headers)
        if not self._is_ours(reply.url) or not self._login_ended(reply, offered):
            return reply
        self._authorizer.forget(wanted)
        if body is not None:
            with reply:
                raise self._expired(reply)
        self._authorizer.learn(offered)
        try:
            again = self._authorized(request, _with_asked(wanted, offered))
        except BaseException:
            reply.close()
            raise
        if again == authorized and again.headers == authorized.headers:
            return reply
        reply.close()
        return self._exchange(again, None, size)

    def _exchange(self, request: Request, body: Body | None, size: int | None) -> Reply:
        reply = self.transport.send(request, body, size=size)
        for text in replies.warnings(reply.headers):
            self.warn(text)
        self._authorizer.rate_limit = replies.rate_limit(reply.headers) or self._authorizer.rate_limit
        return reply

    def _login_ended(self, reply: Reply, offered: list[wire.Challenge]) -> bool:
        """A 401 with a challenge; some registries say it in words instead."""
        if reply.status == 401:
            return bool(offered)
        return reply.status in self.profile.expired_statuses and b"token has expired" in reply.error_body()

    def _authorized(self, request: Request, scopes: tuple[str, ...]) -> Request:
        """With Authorization, when the URL is the registry's own: a foreign upload host gets none."""
        if not self._is_ours(request.url):
            return request
        header = self._authorizer.header(scopes)
        return request.with_header("Authorization", header) if header else request

    def _is_ours(self, url: str) -> bool:
        return wire.origin(url) == wire.origin(self._base())

    def _expired(self, reply: Reply) -> RegistryError:
        """A token that ended during an upload: the whole upload may be tried again with a new one."""
        return RegistryError(
            f"{self._verb} {self.name}: the registry no longer takes the login",
            method=reply.method, url=wire.redact(reply.url), status=reply.status, temporary=True,
        )  # fmt: skip

    # Refusals, in a user's words

    def _shown(self, name: str) -> str:
        return f"{self.path}{'@' if maybe_digest(name) else ':'}{name}"

    def _refusal(self, reply: Reply, name: str = "", verb: Verb | None = None) -> Exception:
        """What a reply that is no answer means; ``name`` is the tag or digest that was asked for."""
        verb = verb or self._verb
        error = unexpected(reply, f"{verb} {self._place(verb)}", self._clock())
        advice = self.profile.explain(verb, error.status, error.codes, error.words)
        if advice is not None:
            return self._advised(error, verb, advice.text.format(domain=self.domain, path=self.path))
        if self._is_unknown_user(reply, error):
            return self._authorizer.wrong_password(reply)
        if reply.status in {401, 403}:
            return self._denied(error, verb)
        reads = verb != "push to" or reply.method in {"GET", "HEAD"}
        if reply.status == 404 and reads and verb != "list repositories of":
            return self._not_found(name, error)
        return error

    def _is_unknown_user(self, reply: Reply, error: RegistryError) -> bool:
        """A token server has taken the password of who comes with a token: then it is the permission that lacks."""
        by_token = any(challenge.scheme == "bearer" for challenge in wire.challenges(reply.headers))
        known = by_token or "DENIED" in error.codes or not self._authorizer.credential.username
        return reply.status == 401 and not known

    def _place(self, verb: Verb) -> str:
        return self.domain if verb == "list repositories of" else self.name

    def _denied(self, error: RegistryError, verb: Verb) -> RegistryError:
        advice = f"access denied for {self._authorizer.user}: check the name and the permission"
        if self._authorizer.user == "anonymous":
            advice = f"access denied: log in with 'tierce login {self.domain}', and check the name"
        return self._advised(error, verb, advice)

    def _advised(self, error: RegistryError, verb: Verb, advice: str) -> RegistryError:
        """The same refusal, final, with what to do before the registry's own words."""
        return RegistryError(
            f"{verb} {self._place(verb)}: {advice}" + (f" (the registry says: {error.words})" if error.words else ""),
            method=error.method, url=error.url, status=error.status, codes=error.codes, words=error.words,
        )  # fmt: skip

    def _not_found(self, name: str, error: RegistryError) -> ReferenceNotFound:
        what = f"repository {self.path}" if "NAME_UNKNOWN" in error.codes or not name else f"image {self._shown(name)}"
        found = ReferenceNotFound(f"{what} not found in registry {self.domain}")
        found.__cause__ = error
        return found


def maybe_digest(text: str | None) -> Digest | None:
    """The digest that ``text`` is, if it is one."""
    try:
        return Digest(text) if text else None
    except InvalidDigest:
        return None


def _with_asked(scopes: tuple[str, ...], offered: list[wire.Challenge]) -> tuple[str, ...]:
    """The scopes, with those that an ``insufficient_scope`` challenge says are missing."""
    asked = [c.get("scope") for c in offered if c.scheme == "bearer" and c.get("error") == "insufficient_scope"]
    extra = [scope for line in asked for scope in line.split()[:8]]
    return tuple(dict.fromkeys((*scopes, *extra)))
