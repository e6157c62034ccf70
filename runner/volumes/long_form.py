"""``--mount``: one CSV record of ``key=value``. Pure.

Source: docker/cli 28 ``opts/mount.go``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from image.errors import InvalidInput
from image.value import replace
from runner.volumes.names import check_name
from runner.volumes.request import KINDS, PROPAGATION, MountRequest, check_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.volumes.request import Kind, Pairs

_BOOLEANS: Final = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "false", "FALSE", "False"), False
)
_ALIASES: Final = {"src": "source", "destination": "target", "dst": "target", "ro": "readonly"}
_BARE: Final = frozenset({"readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src"})
_REPEATED: Final = frozenset({"volume-label", "volume-opt"})
_KNOWN: Final = frozenset({
    "type", "source", "target", "readonly", "consistency", "bind-propagation", "bind-nonrecursive",
    "bind-recursive", "bind-create-src", "volume-driver", "volume-label", "volume-opt", "volume-nocopy",
    "volume-subpath", "tmpfs-size", "tmpfs-mode",
})  # fmt: skip
_BELOW: Final = ("enabled", "disabled", "writable", "readonly")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_Fail = Callable[[str], InvalidInput]


def parse_mount(text: str, *, cwd: str) -> MountRequest:
    """``type=volume|bind|tmpfs,target=…``; the type is volume when none is given. Raises InvalidInput."""

    def fail(why: str) -> InvalidInput:
        return InvalidInput(f"invalid argument {text!r} for --mount: {why}")

    single, repeated = _fields(text, fail)
    kind = single.pop("type", "volume").lower()
    if kind not in KINDS:
        raise fail(f"mount type {kind!r} is not supported, use volume, bind or tmpfs")
    if "target" not in single:
        raise fail("target is required")
    for key in (*single, *repeated):
        prefix = key.partition("-")[0]
        if prefix in KINDS and prefix != kind:
            raise fail(f"cannot mix '{prefix}-*' options with mount type '{kind}'")
    request = MountRequest(
        cast("Kind", kind),
        check_target(single["target"], text),
        single.get("source", ""),
        read_only=_truth(single, "readonly", fail),
    )
    complete = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs}[kind]
    return complete(request, single, repeated, cwd, fail)


def _fields(text: str, fail: _Fail) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Keys that count once (the last wins, as in docker) and those that may be repeated."""
    single: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for field in _split(text, fail):
        key, equals, value = field.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        if key not in _KNOWN:
            raise fail(
                f"unexpected key {key!r} in {field!r}" if equals else f"field {field!r} must be a key=value pair"
            )
        if not equals and key not in _BARE:
            raise fail(f"field {field!r} must be a key=value pair")
        if key in _REPEATED:
            repeated.setdefault(key, []).append(value)
        else:
            single[key] = value if equals else "true"
    return single, repeated


def _split(text: str, fail: _Fail) -> list[str]:
    """A CSV record; only a quoted one needs the module."""
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise fail(str(error)) from error
    return rows[0] if rows else []


def _bind(
    request: MountRequest, single: Mapping[str, str], _: Mapping[str, list[str]], cwd: str, fail: _Fail
) -> MountRequest:
    source = request.source
    if not source:
        raise fail("a bind mount needs a source")
    if source == "." or source.startswith(("./", "../")):
        source = posixpath.join(cwd, source)
    if not source.startswith("/"):
        raise fail(f"mount path {source!r} must be absolute")
    propagation = single.get("bind-propagation", "")
    if propagation and propagation not in PROPAGATION:
        raise fail(f"invalid propagation {propagation!r}")
    below = single.get("bind-recursive", "enabled")
    if below not in _BELOW:
        raise fail(f"invalid value for bind-recursive: {below!r}, want one of {', '.join(_BELOW)}")
    if _truth(single, "bind-nonrecursive", fail):
        below = "disabled"
    if below == "readonly" and not request.read_only:
        raise fail("option 'bind-recursive=readonly' requires 'readonly'")
    return replace(
        request,
        source=posixpath.normpath(source),
        propagation=propagation,
        below=below,
        make_source=_truth(single, "bind-create-src", fail),
    )


def _volume(
    request: MountRequest, single: Mapping[str, str], repeated: Mapping[str, list[str]], _: str, fail: _Fail
) -> MountRequest:
    subpath = single.get("volume-subpath", "")
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise fail(f"volume-subpath {subpath!r} must be a relative path inside the volume")
    if subpath and not request.source:
        raise fail("volume-subpath needs a volume with a name")
    return replace(
        request,
        source=check_name(request.source) if request.source else "",
        no_copy=_truth(single, "volume-nocopy", fail),
        subpath=subpath,
        driver=single.get("volume-driver", ""),
        driver_options=pairs(repeated.get("volume-opt", ())),
        labels=pairs(repeated.get("volume-label", ())),
    )


def _tmpfs(
    request: MountRequest, single: Mapping[str, str], _: Mapping[str, list[str]], __: str, fail: _Fail
) -> MountRequest:
    if request.source:
        raise fail("a tmpfs has no source")
    words = ["noexec", "nosuid", "nodev"]
    if size := single.get("tmpfs-size"):
        words.append(f"size={_bytes(size, fail)}")
    if mode := single.get("tmpfs-mode"):
        if not re.fullmatch("[0-7]+", mode):
            raise fail(f"invalid value for tmpfs-mode: {mode!r} is not octal")
        words.append(f"mode={mode}")
    return replace(request, tmpfs_options=tuple(words))


def _truth(fields: Mapping[str, str], key: str, fail: _Fail) -> bool:
    value = fields.get(key, "false")
    if value not in _BOOLEANS:
        raise fail(f"invalid value for {key}: {value}")
    return _BOOLEANS[value]


def _bytes(text: str, fail: _Fail) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise fail(f"invalid value for tmpfs-size: {text}")
    return int(float(found[1]) * 1024 ** ("_kmgtp".index(found[2].lower() or "_")))


def pairs(words: Iterable[str]) -> Pairs:
    """``KEY[=VALUE]`` words, as labels and options are written."""
    return tuple((key, value) for key, _, value in (word.partition("=") for word in words))
