"""Words that name something on a network: a file's URL or a git repository. Pure.

ADD sources, build contexts and named contexts are read here. What reaches a git command line
later is checked here: no part of it can be taken for an option.

Spec: dockerfile.md 1.5, rows "ADD URL" and "ADD git".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from builder.dockerfile.arguments import did_you_mean, parse_bool
from image.errors import InvalidInput
from image.value import dataclass

_SCP: Final = re.compile(
    r"([A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9.][A-Za-z0-9.-]*):(?!//)([^?#]*)(?:\?([^#]*))?(?:#(.*))?\Z"
)
_SCHEMES: Final = frozenset({"http", "https", "ssh", "git"})
_REF: Final = re.compile(r"[A-Za-z0-9_.+@][A-Za-z0-9_.+@/-]*\Z")
_COMMIT: Final = re.compile(r"[0-9a-f]{4,64}\Z")
_QUERY: Final = frozenset({
    "ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime",
})  # fmt: skip
_NAMELESS: Final = "__unnamed__"
"""What docker calls a download whose URL has no last part."""


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file behind http or https. ``name`` is what it is called where it is copied to."""

    url: str
    name: str


@dataclass(frozen=True, slots=True)
class GitSource:
    """A commit of a repository: of ``ref`` ("" is the default branch), or ``checksum`` when that is whole.

    ``checksum`` is the start that the commit must have. ``commit_times`` gives files the
    commit's time rather than that of the check-out.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    commit_times: bool = False


def parse_remote(text: str, *, context: bool = False) -> UrlSource | GitSource | None:
    """What a word names on the network; None for a local path.

    A ``context`` may be written ``github.com/user/repository``, which as a source is a path.
    Raises InvalidInput for a URL that breaks the rules.
    """
    if context and text.startswith("github.com/"):
        text = f"https://{text}"
        path, mark, rest = text.partition("#")
        text = f"{path.removesuffix('.git')}.git{mark}{rest}"
    if scp := _SCP.match(text):
        host, path, query, fragment = scp.groups()
        return _git(f"{host}:{path}", query or "", fragment or "", text)
    scheme, found, _ = text.partition("://")
    if not found or scheme.lower() not in _SCHEMES:
        return None
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"invalid URL {shown(text)!r}: {error}") from error
    if not host or host.startswith("-") or any(not letter.isprintable() or letter == " " for letter in text):
        raise InvalidInput(f"invalid URL {shown(text)!r}: want a host, and no spaces")
    if scheme.lower() in {"http", "https"} and not parts.path.endswith(".git"):
        return UrlSource(text.partition("#")[0], _file_name(parts.path))
    remote = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return _git(remote, parts.query, parts.fragment, text)


def shown(url: str) -> str:
    """A URL for messages: no user, no password, no query (signed links carry secrets there)."""
    without_query = re.sub(r"\?[^#]*", "", url)
    return re.sub(r"\A([A-Za-z]+://)[^/]*@", r"\1", without_query)


def _file_name(path: str) -> str:
    """The last part of a URL's path, as a name that stays in its directory."""
    name = posixpath.basename(unquote(posixpath.basename(path)))
    return name if name not in {"", ".", ".."} and name.isprintable() and len(name) < 200 else _NAMELESS


def _git(remote: str, query: str, fragment: str, text: str) -> GitSource:
    values = _query(query, text)
    ref, _, subdir = fragment.partition(":")
    named = [name for name in ("ref", "tag", "branch") if name in values]
    if len(named) + bool(ref) > 1:
        raise InvalidInput(f"invalid git URL {shown(text)!r}: {' and '.join([*named, 'fragment'][:2])} conflict")
    if subdir and "subdir" in values:
        raise InvalidInput(f"invalid git URL {shown(text)!r}: subdir is given twice")
    if "checksum" in values and "commit" in values:
        raise InvalidInput(f"invalid git URL {shown(text)!r}: checksum and commit conflict")
    for name, prefix in (("ref", ""), ("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if name in values:
            ref = prefix + values[name]
    if values.get("mtime", "checkout") not in {"checkout", "commit"}:
        raise InvalidInput(f"invalid git URL {shown(text)!r}: mtime is checkout or commit, not {values['mtime']!r}")
    return GitSource(
        _checked_remote(remote, text),
        _checked_ref(ref, text),
        posixpath.normpath("/" + (subdir or values.get("subdir", ""))).strip("/"),
        checked_commit(values.get("checksum", values.get("commit", ""))),
        _flag(values, "keep-git-dir", text, default=False),
        _flag(values, "submodules", text, default=True),
        values.get("mtime") == "commit",
    )


def _query(query: str, text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, given in parse_qs(query, keep_blank_values=True).items():
        if name not in _QUERY:
            raise InvalidInput(
                f"invalid git URL {shown(text)!r}: unexpected query {name!r}{did_you_mean(name, sorted(_QUERY))}"
            )
        if len(given) > 1:
            raise InvalidInput(f"invalid git URL {shown(text)!r}: query {name!r} has several values")
        values[name] = given[0]
    return values


def _flag(values: Mapping[str, str], name: str, text: str, *, default: bool) -> bool:
    if name not in values:
        return default
    value = parse_bool(values[name]) if values[name] else True
    if value is None:
        raise InvalidInput(f"invalid git URL {shown(text)!r}: {name} is true or false, not {values[name]!r}")
    return value


def _checked_remote(remote: str, text: str) -> str:
    place = remote.partition("://")[2] or remote.replace(":", "/", 1)
    login, _, path = place.partition("/")
    if not path or not remote.isprintable() or any(part.startswith("-") for part in (*login.split("@"), path)):
        raise InvalidInput(f"invalid git URL {shown(text)!r}: want a host and a path, neither like an option")
    return remote


def _checked_ref(ref: str, text: str) -> str:
    if ref and (not _REF.match(ref) or ".." in ref or "@{" in ref or len(ref) > 255):
        raise InvalidInput(f"invalid git URL {shown(text)!r}: {ref!r} is no branch, tag or commit")
    return ref


def checked_commit(checksum: str) -> str:
    """A commit, or the start of one. Raises InvalidInput."""
    checksum = checksum.lower()
    if checksum and not _COMMIT.match(checksum):
        raise InvalidInput(f"invalid commit {checksum!r}: want at least 4 of its hexadecimal digits")
    return checksum
