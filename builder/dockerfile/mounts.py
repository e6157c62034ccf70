"""``RUN --mount``: one typed value for each kind of mount.

A mount's values may hold variables, so the text stays in ``Run.mounts`` and is parsed when
the environment is known. Errors have BuildKit's words.

Spec: dockerfile.md 1.6.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from builder.dockerfile.arguments import did_you_mean, parse_bool
from builder.dockerfile.words import quoted
from image.errors import DockerfileError
from image.value import dataclass, field, replace

Expander = Callable[[str], str]

MAX_SECRET = 500 * 1024
"""Bytes in one secret."""

SECRETS_DIRECTORY = "/run/secrets"

_KINDS = ("bind", "cache", "secret", "ssh", "tmpfs")
_SHARING = ("locked", "private", "shared")
_KEYS = {
    "type": "type", "from": "from", "source": "source", "src": "source",
    "target": "target", "dst": "target", "destination": "target",
    "readonly": "readonly", "ro": "readonly", "readwrite": "readwrite", "rw": "readwrite",
    "id": "id", "sharing": "sharing", "required": "required", "mode": "mode",
    "uid": "uid", "gid": "gid", "size": "size", "env": "env",
}  # fmt: skip
_SIZE = r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)i?b?\Z"


@dataclass(frozen=True, slots=True)
class BindMount:
    """Part of a stage, named context or image (``from_``; "" is the build context).

    Writes to it, allowed unless ``read_only``, are discarded.
    """

    target: str
    source: str = "/"
    from_: str = ""
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A directory that outlives the build, found by ``id``.

    Another ``mode``, ``uid`` or ``gid`` means another directory.
    """

    target: str
    id: str
    sharing: str = "shared"
    from_: str = ""
    source: str = "/"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """An empty file system in memory. ``size`` in bytes, 0 for the kernel's default."""

    target: str
    size: int = 0
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A secret as a file at ``target``, as the variable ``env``, or both; "" means not so."""

    id: str
    target: str
    env: str = ""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class SshMount:
    """An agent's socket; ``target`` "" means ``/run/buildkit/ssh_agent.N``."""

    id: str = "default"
    target: str = ""
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


Mount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


def check_mount_syntax(text: str) -> None:
    """What can be said of a mount before variables are known. Raises ValueError."""
    for item in _fields(text):
        key, _, value = item.partition("=")
        if key.lower() == "from" and re.search(r"\$.", value):
            raise ValueError("'from' doesn't support variable expansion, define alias stage instead")


def parse_mount(text: str, expand: Expander) -> Mount:
    """The mount that ``text`` describes. Raises DockerfileError, without a span."""
    try:
        given = _Given()
        for item in _fields(text):
            given = _read(given, item, expand)
        _check(given)
        return _build(given)
    except ValueError as error:
        raise DockerfileError(str(error)) from None


def mount_target(target: str, workdir: str) -> str:
    """Where a mount goes: ``target`` from the working directory. Raises DockerfileError for ``/``."""
    path = posixpath.normpath(posixpath.join("/", workdir, target)).replace("//", "/")
    if path == "/":
        hint = "" if target else "say where, with target="
        raise DockerfileError(f"invalid mount target {quoted(path)}", hint=hint)
    return path


@dataclass(frozen=True, slots=True)
class _Given:
    """The options as given, before defaults."""

    kind: str = "bind"
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    read_only: bool | None = None
    required: bool = False

    def text(self, key: str, default: str = "") -> str:
        return self.texts.get(key) or default

    def number(self, key: str, default: int) -> int:
        return self.numbers.get(key, default)


def _fields(text: str) -> list[str]:
    if not text:
        raise ValueError("failed to parse csv mounts: EOF")
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise ValueError(f"failed to parse csv mounts: {error}") from None


def _read(given: _Given, item: str, expand: Expander) -> _Given:
    written, equals, value = item.partition("=")
    written = written.lower()
    key = _KEYS.get(written)
    if not equals:
        if key not in {"readonly", "readwrite", "required"}:
            raise ValueError(f"invalid field '{item}' must be a key=value pair")
        value = "true"
    if key is None:
        raise ValueError(f"unexpected key '{written}' in '{item}'{did_you_mean(written, _KEYS)}")
    value = expand(value)
    match key:
        case "type":
            return replace(given, kind=_choice(value, _KINDS, f"unsupported mount type {quoted(value)}"))
        case "sharing":
            sharing = _choice(value, _SHARING, f"unsupported sharing value {quoted(value)}")
            return replace(given, texts={**given.texts, key: sharing})
        case "readonly" | "readwrite":
            return replace(given, read_only=_bool(written, value) == (key == "readonly"))
        case "required":
            _only_for(given, written, {"secret", "ssh"})
            return replace(given, required=_bool(written, value))
        case "size":
            _only_for(given, written, {"tmpfs"})
            return replace(given, numbers={**given.numbers, key: _size(written, value)})
        case "mode" | "uid" | "gid":
            number = _number(key, value, 8 if key == "mode" else 10)
            return replace(given, numbers={**given.numbers, key: number})
        case "env":
            _only_for(given, written, {"secret"})
            return replace(given, texts={**given.texts, key: value})
        case _:
            return replace(given, texts={**given.texts, key: value})


def _choice(value: str, choices: tuple[str, ...], problem: str) -> str:
    lowered = value.lower()
    if lowered not in choices:
        raise ValueError(problem + did_you_mean(value, choices))
    return lowered


def _only_for(given: _Given, key: str, kinds: set[str]) -> None:
    if given.kind not in kinds:
        raise ValueError(f"unexpected key '{key}' for mount type '{given.kind}'")


def _bool(key: str, value: str) -> bool:
    parsed = parse_bool(value)
    if parsed is None:
        raise ValueError(f"invalid value for {key}: {value}")
    return parsed


def _number(key: str, value: str, base: int) -> int:
    digits = "[0-7]" if base == 8 else "[0-9]"
    if not re.match(rf"{digits}{{1,12}}\Z", value) or int(value, base) >= 2**32:
        raise ValueError(f"invalid value {value} for {key}")
    return int(value, base)


def _size(key: str, value: str) -> int:
    found = re.match(_SIZE, value, re.IGNORECASE)
    if found is None or len(value) > 32:
        raise ValueError(f"invalid value for {key}: {value}")
    return int(float(found.group(1)) * 1024 ** " kmgtp".index(found.group(2).lower() or " "))


def _check(given: _Given) -> None:
    if given.kind in {"bind", "tmpfs"}:
        for key in ("mode", "uid", "gid"):
            if key in given.numbers:
                raise ValueError(f"{key} not allowed for {quoted(given.kind)} type mounts")
    if given.kind == "secret":
        _check_secret(given)
    if given.text("sharing") and given.kind != "cache":
        raise ValueError(f"invalid cache sharing set for {given.kind} mount")


def _check_secret(given: _Given) -> None:
    if given.text("from"):
        raise ValueError("secret mount should not have a from")
    if given.text("sharing"):
        raise ValueError("secret mount should not define sharing")
    if not (given.text("source") or given.text("target") or given.text("id")):
        raise ValueError("invalid secret mount. one of source, target required")
    if given.text("source") and given.text("id"):
        raise ValueError("both source and id can't be set")


def _build(given: _Given) -> Mount:
    target, source = given.text("target"), given.text("source", "/")
    uid, gid = given.number("uid", 0), given.number("gid", 0)
    match given.kind:
        case "cache":
            return CacheMount(
                target,
                given.text("id") or posixpath.normpath(target or "."),
                given.text("sharing", "shared"),
                given.text("from"),
                source,
                given.number("mode", 0o755),
                uid,
                gid,
                given.read_only or False,
            )
        case "tmpfs":
            return TmpfsMount(target, given.number("size", 0), given.read_only or False)
        case "secret":
            return _build_secret(given, uid, gid)
        case "ssh":
            mode = given.number("mode", 0o600)
            return SshMount(given.text("id", "default"), target, given.required, mode, uid, gid)
        case _:
            return BindMount(target, source, given.text("from"), given.read_only is not False)


def _build_secret(given: _Given, uid: int, gid: int) -> SecretMount:
    target, env = given.text("target"), given.text("env")
    name = given.text("id") or given.text("source") or posixpath.basename(posixpath.normpath(target))
    if not target and not env:
        target = f"{SECRETS_DIRECTORY}/{posixpath.basename(posixpath.normpath(name))}"
    return SecretMount(name, target, env, given.required, given.number("mode", 0o400), uid, gid)
