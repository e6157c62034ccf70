"""What registries.conf says, as values: where a name leads, and what a short name may mean. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from image.errors import InvalidReference, PolicyRejected
from image.reference import DEFAULT_DOMAIN, Reference
from image.value import dataclass, field, replace

ShortNameMode = Literal["enforcing", "permissive", "disabled"]
MirrorUse = Literal["all", "digest-only", "tag-only"]

AUTH_FILES: Final = "containers-auth.json"
"""The word in ``credential-helpers`` that stands for the credential files."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A place that may be asked instead. ``location`` takes the place of the rule's prefix."""

    location: str
    insecure: bool = False
    use: MirrorUse = "all"


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``[[registry]]`` table: how names that start with ``prefix`` are reached.

    ``prefix`` is ``host[:port][/path]`` or ``*.host``. An empty ``location``, which only
    ``*.host`` may have, leaves the names as they are. ``file`` is where it is written.
    """

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirrors: tuple[Mirror, ...] = ()
    file: str = ""

    def matched(self, name: str) -> int:
        """How many characters of a full name the prefix covers; 0 when it does not match."""
        if self.prefix.startswith("*."):
            host = name.partition("/")[0].partition(":")[0]
            return len(host) if host.endswith(self.prefix[1:]) else 0
        # After a bare host a colon begins a port, and that is another registry.
        following = ("/", ":", "@") if "/" in self.prefix else ("/",)
        rest = name.removeprefix(self.prefix)
        return len(self.prefix) if name.startswith(self.prefix) and (not rest or rest.startswith(following)) else 0


@dataclass(frozen=True, slots=True)
class Place:
    """A registry and repository to ask, which is not always where the name says."""

    reference: Reference
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """All files together. The default is that of a machine without any."""

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] = ()
    search_file: str = ""
    short_name_mode: ShortNameMode = "permissive"
    aliases: Mapping[str, str] = field(default_factory=dict)
    credential_helpers: tuple[str, ...] = (AUTH_FILES,)

    def rule(self, name: str) -> Rule | None:
        """The rule with the longest prefix of a full name (``host[:port]`` with or without more)."""
        found = max(self.rules, key=lambda rule: rule.matched(name), default=None)
        return found if found is not None and found.matched(name) else None

    def pull_places(self, reference: Reference) -> tuple[Place, ...]:
        """Where to ask for an image, in this order: its mirrors, then the registry itself unless that is blocked.

        Raises PolicyRejected when no place is left, InvalidReference when a location makes no
        valid name of it.
        """
        rule = self.rule(str(reference))
        if rule is None:
            return (Place(reference),)
        mirrors = [Place(_moved(reference, rule, m.location), m.insecure) for m in _mirrors_for(rule, reference)]
        allowed = tuple(place for place in mirrors if not self._is_blocked(place.reference))
        return allowed if rule.blocked and allowed else (*allowed, self.own_place(reference))

    def own_place(self, reference: Reference) -> Place:
        """Where the registry itself is read, no mirror. Raises as ``pull_places``."""
        rule = self._open_rule(reference, "pull")
        return Place(reference) if rule is None else Place(_moved(reference, rule, rule.location), rule.insecure)

    def push_place(self, reference: Reference) -> Place:
        """Where an image goes: always where its name says. Raises PolicyRejected when that is blocked."""
        rule = self._open_rule(reference, "push")
        return Place(reference, rule is not None and rule.insecure)

    def _is_blocked(self, reference: Reference) -> bool:
        rule = self.rule(str(reference))
        return rule is not None and rule.blocked

    def without_redirection(self) -> RegistriesConf:
        """The same with every name where it says: for reading again what was pushed there."""
        return replace(self, rules=tuple(replace(rule, location="", mirrors=()) for rule in self.rules))

    def _open_rule(self, reference: Reference, verb: str) -> Rule | None:
        rule = self.rule(str(reference))
        if rule is not None and rule.blocked:
            raise PolicyRejected(f"{verb} {reference}: {rule.prefix} is blocked by {rule.file}")
        return rule

    def meanings(self, reference: Reference) -> tuple[Reference, ...]:
        """The full names to try for a short name, in this order, where nobody is asked.

        Raises InvalidReference when ``short-name-mode`` is ``enforcing`` and there is a choice.
        """
        found = self.candidates(reference)
        if self.short_name_mode == "enforcing" and len(found) > 1:
            choice = " or ".join(str(each) for each in found)
            raise InvalidReference(
                f"short name {reference.familiar!r} is ambiguous: write {choice}"
                f" (short-name-mode is enforcing, the registries are from {self.search_file})"
            )
        return found

    def candidates(self, reference: Reference) -> tuple[Reference, ...]:
        """The full names that a short name may stand for.

        A full name means itself. A short one is what its alias says, else it is looked for
        in the search registries, and without any on Docker Hub.
        """
        if not reference.short:
            return (reference,)
        name = reference.familiar_repository
        if alias := self.aliases.get(name):
            full = Reference.parse(alias)
            return (replace(reference, domain=full.domain, path=full.path, short=False),)
        if not self.search:
            return (replace(reference, short=False),)
        return tuple(_on_host(reference, host, name) for host in self.search)

    @property
    def asks(self) -> bool:
        """Whether a user who can be asked chooses among several candidates."""
        return self.short_name_mode != "disabled"


def _mirrors_for(rule: Rule, reference: Reference) -> Iterator[Mirror]:
    for mirror in rule.mirrors:
        use = "digest-only" if rule.mirror_by_digest_only else mirror.use
        if use == "all" or (use == "digest-only") == (reference.digest is not None):
            yield mirror


def _moved(reference: Reference, rule: Rule, location: str) -> Reference:
    """The name with ``location`` in the place of the rule's prefix."""
    if not location:
        return reference
    covered = rule.matched(str(reference))
    host, _, path = f"{location}{reference.repository[covered:]}".partition("/")
    try:
        return _on_host(reference, host, path)
    except InvalidReference as error:
        raise InvalidReference(f"{reference}: location {location!r} in {rule.file}: {error}") from error


def _on_host(reference: Reference, host: str, path: str) -> Reference:
    if host == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return replace(reference, domain=host, path=path, short=False)
