"""Image names: the distribution grammar with Docker's normalisation.

``ubuntu`` means ``docker.io/library/ubuntu``; a first segment is a host only if it
contains a dot or a colon or is ``localhost``.

Spec: distribution ``reference`` grammar.

The grammar is loaded and compiled when an unusual name first needs it: that takes longer than reading a name.
"""

from __future__ import annotations

from image.digest import Digest
from image.errors import InvalidDigest, InvalidReference
from image.value import dataclass, field, replace

DEFAULT_DOMAIN = "docker.io"
_DOMAIN = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[A-Fa-f0-9:]+\])(?::[0-9]{1,5})?\Z"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*\Z"
_LONGEST_TAG = 128
_HEX = frozenset("0123456789abcdef")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_OF_TAGS = _PLAIN | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-")
_MAX_NAME_LENGTH = 255


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A repository on a host, with a tag, a digest, both or neither.

    ``short``: the user named no host, and ``docker.io`` is our guess.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None
    short: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.domain != DEFAULT_DOMAIN and not _matches(_DOMAIN, self.domain):
            raise InvalidReference(f"invalid registry host {self.domain!r}")
        if not _is_path(self.path):
            hint = ": repository names are lowercase" if self.path != self.path.lower() else ""
            raise InvalidReference(f"invalid repository name {self.path[:300]!r}{hint}")
        if len(self.domain) + 1 + len(self.path) > _MAX_NAME_LENGTH:
            raise InvalidReference(f"image name {self.path[:40]!r}... is longer than {_MAX_NAME_LENGTH} characters")
        if self.tag is not None and not _is_tag(self.tag):
            raise InvalidReference(f"invalid tag {self.tag[:150]!r}")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that a user wrote. No tag stays no tag (see ``with_default_tag``).

        Raises InvalidReference.
        """
        if len(text) == 64 and _HEX.issuperset(text):
            raise InvalidReference(f"invalid image name {text!r}: 64 hex digits are an id, not a name")
        rest, at, digest_text = text.partition("@")
        digest: Digest | None = None
        if at:
            try:
                digest = Digest(digest_text)
            except InvalidDigest as error:
                raise InvalidReference(f"invalid image name {text[:300]!r}: {error}") from error
        short = not _has_host(rest)
        domain, rest = _split_domain(rest)
        path, colon, tag = rest.partition(":")
        if not path:
            raise InvalidReference(f"invalid image name {text[:300]!r}: the repository is missing")
        if domain == DEFAULT_DOMAIN and "/" not in path:
            path = f"library/{path}"
        return cls(domain, path, tag if colon else None, digest, short)

    @property
    def repository(self) -> str:
        """``host/path`` without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as docker prints it: ``ubuntu`` for ``docker.io/library/ubuntu``.

        The host stays where the path alone would be read as another host.
        """
        if self.domain != DEFAULT_DOMAIN or _looks_like_host(self.path.partition("/")[0]):
            return self.repository
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_repository + self._suffix()

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """With ``latest`` when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at exactly this content; a tag stays for display."""
        return replace(self, digest=digest)

    def with_tag(self, tag: str) -> Reference:
        return replace(self, tag=tag, digest=None)


def _split_domain(name: str) -> tuple[str, str]:
    if not _has_host(name):
        return DEFAULT_DOMAIN, name
    first, _, rest = name.partition("/")
    return (DEFAULT_DOMAIN if first in {"index.docker.io", "docker.io"} else first), rest


def _has_host(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and _looks_like_host(first)


def _looks_like_host(segment: str) -> bool:
    return "." in segment or ":" in segment or segment == "localhost" or segment != segment.lower()


def _is_path(text: str) -> bool:
    """The usual path is letters and digits between slashes; for others there is the grammar."""
    return all(part and _PLAIN.issuperset(part) for part in text.split("/")) or _matches(_PATH, text)


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_TAG and text[0] not in ".-" and _OF_TAGS.issuperset(text)


def _matches(grammar: str, text: str) -> bool:
    import re  # takes longer to import than reading a name

    return re.match(grammar, text) is not None
