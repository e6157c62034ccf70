"""skopeo's ways to say what to copy: its YAML, a repository, a directory.

A destination is a prefix. An image's last name goes below it, or with ``scoped`` its whole
name, registry included.

Spec: skopeo-sync(1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal

from image.digest import Digest
from image.errors import InvalidDigest, InvalidInput
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass
from transfer.sync.fields import Fields
from transfer.sync.rules import Access, Configuration, Rule, Selection, pattern
from transfer.sync.semver import Range

Transport = Literal["docker", "dir"]
_REGISTRY = ("images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where images go: below ``prefix`` of a registry or a directory."""

    transport: Transport
    prefix: str
    scoped: bool = False

    def of(self, repository: Reference) -> str:
        """The address of a repository's images there."""
        return self.place(f"{repository.domain}/{repository.path}" if self.scoped else repository.path)

    def place(self, name: str) -> str:
        """The address of something that is called so at its source."""
        below = name if self.scoped else name.rpartition("/")[2]
        prefix = self.prefix.rstrip("/")
        if self.transport == "dir":
            return f"dir:{os.path.join(prefix, below)}"
        return f"docker://{prefix}/{below}"


def from_yaml(data: bytes, name: str, destination: Destination, platforms: Sequence[Platform] = ()) -> Configuration:
    """The rules of a file of registries. Raises InvalidInput that says where in the file."""
    top = Fields.read(data, name)
    rules: list[Rule] = []
    access: dict[str, Access] = {}
    for host in top.items:
        fields = top.mapping(host)
        fields.only(*_REGISTRY)
        rules += _rules(host, fields, destination, tuple(platforms))
        access[host] = _access(fields)
    return Configuration(tuple(rules), access)


def _rules(host: str, fields: Fields, destination: Destination, platforms: tuple[Platform, ...]) -> Iterator[Rule]:
    images = fields.mapping("images")
    for path in images.items:
        tags = images.texts(path)
        for tag in tags:
            _check_tag(tag, images.failing(path))
        yield _repository(host, path, destination, platforms, tags=tags)
    expressions = fields.mapping("images-by-tag-regex")
    for path in expressions.items:
        # skopeo looks for the pattern anywhere in the tag
        anywhere = pattern(f"(?:.*?)(?:{pattern(expressions.text(path)).pattern})(?:.*)")
        yield _repository(host, path, destination, platforms, selection=Selection((anywhere,)))
    ranges = fields.mapping("images-by-semver")
    for path in ranges.items:
        yield _repository(host, path, destination, platforms, selection=Selection(ranges=(Range(ranges.text(path)),)))


def _repository(
    host: str, path: str, destination: Destination, platforms: tuple[Platform, ...], *,
    tags: tuple[str, ...] = (), selection: Selection | None = None,
) -> Rule:  # fmt: skip
    repository = Reference.parse(f"{host}/{path}")
    if repository.tag or repository.digest:
        raise InvalidInput(f"{host}/{path} has a tag in its name: list tags below it")
    return Rule(
        "repository",
        f"docker://{repository.repository}",
        destination.of(repository),
        tags=tags,
        selections=(selection,) if selection else (),
        platforms=platforms,
    )


def _check_tag(tag: str, place: str) -> None:
    try:
        if ":" in tag:
            Digest(tag)
        else:
            Reference.parse(f"name:{tag}")
    except (InvalidDigest, InvalidInput) as error:
        raise InvalidInput(f"{place}: {tag[:200]!r} is neither a tag nor a digest") from error


def _access(fields: Fields) -> Access:
    login = fields.mapping("credentials")
    login.only("username", "password")
    return Access(
        login.text("username"),
        login.text("password"),
        insecure=not fields.flag("tls-verify", default=True),
        certificates=fields.text("cert-dir"),
    )


def from_registry(name: str, destination: Destination, platforms: Sequence[Platform] = ()) -> Configuration:
    """One repository, or one image of it. Raises InvalidReference."""
    reference = Reference.parse(name)
    tags = tuple(str(one) for one in (reference.digest or reference.tag,) if one)
    rule = Rule(
        "repository",
        f"docker://{reference.repository}",
        destination.of(reference),
        tags=tags,
        platforms=tuple(platforms),
    )
    return Configuration((rule,))


def from_directory(path: str, destination: Destination) -> Configuration:
    """Every image at or below a directory, as ``dir:`` writes them. Raises InvalidInput when there is none."""
    if destination.transport == "dir":
        raise InvalidInput("sync from a directory into a directory: use cp, or a registry as one of them")
    top = os.path.abspath(path)
    found = sorted(directory for directory, _, files in os.walk(top) if "manifest.json" in files)
    if not found:
        raise InvalidInput(f"no image found at {path}: it has a manifest.json in a directory NAME:TAG")
    rules = []
    for directory in found:
        below = os.path.relpath(directory, top) if directory != top else os.path.basename(top)
        rules.append(Rule("image", f"dir:{directory}", destination.place(below)))
    return Configuration(tuple(rules))
