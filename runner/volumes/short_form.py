"""``-v``: ``[SOURCE:]TARGET[:MODE]``. Pure.

Source: moby 28 ``volume/mounts/linux_parser.go``.
"""

from __future__ import annotations

import posixpath
from typing import Final

from image.errors import InvalidInput
from image.value import replace
from runner.volumes.names import check_name
from runner.volumes.request import PROPAGATION, MountRequest, check_target

_GROUPS: Final = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    frozenset({"nocopy"}),
    frozenset({"consistent", "cached", "delegated"}),
    PROPAGATION,
)
"""At most one word of each. SELinux labels and Docker Desktop's hints change nothing here, as on docker's Linux."""


def parse_volume(text: str, *, cwd: str) -> MountRequest:
    """A bind when the source is a path (``/…``, or ``.…`` below ``cwd``), else a volume. Raises InvalidInput."""
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and _is_mode(parts[1])):
        raise InvalidInput(f"invalid volume specification: {text!r}, want [SOURCE:]/TARGET[:MODE]")
    source, target, mode = _three(parts)
    if mode and not _is_mode(mode):
        raise InvalidInput(f"invalid volume specification: {text!r}: invalid mode {mode!r}")
    words = mode.split(",") if mode else []
    propagation = next((word for word in words if word in PROPAGATION), "")
    request = MountRequest("volume", check_target(target, text), read_only="ro" in words, mode=mode)
    if source.startswith((".", "~")):
        source = posixpath.join(cwd, source)
    if not source.startswith("/"):
        if propagation:
            raise InvalidInput(f"invalid volume specification: {text!r}: propagation is for host paths")
        name = check_name(source) if source else ""
        return replace(request, source=name, no_copy="nocopy" in words)
    if "nocopy" in words:
        raise InvalidInput(f"invalid volume specification: {text!r}: nocopy is for volumes")
    return replace(request, kind="bind", source=posixpath.normpath(source), make_source=True, propagation=propagation)


def _three(parts: list[str]) -> tuple[str, str, str]:
    match parts:
        case [target]:
            return "", target, ""
        case [source, target]:
            return source, target, ""
        case _:
            return parts[0], parts[1], parts[2]


def _is_mode(text: str) -> bool:
    left = list(_GROUPS)
    for word in text.split(","):
        group = next((group for group in left if word in group), None)
        if group is None:
            return False
        left.remove(group)
    return True
