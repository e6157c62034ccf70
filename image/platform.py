"""Platforms: how users spell them, and which image of an index serves a machine.

Spec: image-spec "Image Index"; matching follows containerd's ``platforms`` package.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from image.document import Node
from image.errors import InvalidPlatform
from image.value import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OF_WORDS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_ARCHITECTURES = {
    "i386": ("386", ""), "i486": ("386", ""), "i586": ("386", ""), "i686": ("386", ""),
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"), "armv7l": ("arm", "v7"), "armv8l": ("arm", "v8"),
    "powerpc64le": ("ppc64le", ""), "mips64el": ("mips64le", ""), "mipsel": ("mipsle", ""),
}  # fmt: skip
_SYSTEMS = {"macos": "darwin"}
_KNOWN = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
})  # fmt: skip
"""Architectures that a word alone may mean; with a system before it, any word is one."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Where an image runs, in Go's names. ``variant`` is "" where there is none."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str, default: Platform | None = None) -> Platform:
        """``linux/arm64/v8``, ``arm64`` or ``linux``; what is left out comes from ``default``.

        Raises InvalidPlatform.
        """
        parts = text.split("/")
        if len(parts) > 3 or not all(part and _OF_WORDS.issuperset(part) for part in parts):
            raise InvalidPlatform(f"invalid platform {text!r}: want os[/architecture[/variant]]")
        if len(parts) == 1:
            if _known_system(parts[0].lower()):
                if default is None:
                    raise InvalidPlatform(f"invalid platform {text!r}: the architecture is missing")
                return normalized(parts[0], default.architecture, default.variant)
            found = normalized(default.os if default else "linux", parts[0], "")
            if found.architecture not in _KNOWN:
                raise InvalidPlatform(f"invalid platform {text!r}: unknown operating system or architecture")
            return found
        return normalized(parts[0], parts[1], parts[2] if len(parts) == 3 else "")

    @classmethod
    def of_machine(cls, system: str, machine: str) -> Platform:
        """The platform that ``platform.system()`` and ``platform.machine()`` describe."""
        return normalized(system, machine, "")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            document["os.version"] = self.os_version
        if self.os_features:
            document["os.features"] = list(self.os_features)
        if self.variant:
            document["variant"] = self.variant
        return document


def normalized(system: str, architecture: str, variant: str) -> Platform:
    """Go's names for what users, kernels and Debian say; default variants are dropped."""
    system = _SYSTEMS.get(system.lower(), system.lower())
    architecture = architecture.lower()
    name, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant.lower() or implied
    if variant and variant[0].isdigit() and name in {"arm", "arm64"}:
        variant = "v" + variant
    if name == "arm64" and variant == "v8":
        variant = ""
    if name == "arm" and not variant:
        variant = "v7"
    if name == "amd64" and variant == "v1":
        variant = ""
    return Platform(system, name, variant)


def decode_platform(node: Node) -> Platform:
    """A descriptor's ``platform`` member."""
    features = node.get("os.features")
    return Platform(
        node.need("os").string(),
        node.need("architecture").string(),
        node.maybe_string("variant"),
        node.maybe_string("os.version"),
        features.strings() if features else (),
    )


def best_match(wanted: Platform, offered: Iterable[Platform | None]) -> int | None:
    """The position of the offer that serves ``wanted`` best; None if none does.

    An exact variant wins; otherwise the highest one the machine can still run
    (``arm/v7`` runs v6 and v5, ``amd64/v3`` runs v2 and v1).
    """
    best: tuple[int, int] | None = None
    for position, offer in enumerate(offered):
        if offer is None:
            continue
        distance = _distance(wanted, offer)
        if distance is not None and (best is None or distance < best[0]):
            best = (distance, position)
    return None if best is None else best[1]


def _distance(wanted: Platform, offer: Platform) -> int | None:
    mine = normalized(wanted.os, wanted.architecture, wanted.variant)
    theirs = normalized(offer.os, offer.architecture, offer.variant)
    if mine.os != theirs.os:
        return None
    if mine.architecture != theirs.architecture:
        runs_arm32 = mine.architecture == "arm64" and theirs.architecture == "arm"
        return 100 + 8 - _level(theirs) if runs_arm32 and _level(theirs) <= 8 else None
    if mine.variant == theirs.variant:
        return 0
    gap = _level(mine) - _level(theirs)
    return gap if gap > 0 else None


def _level(platform: Platform) -> int:
    """The variant as a number: v7 is 7; the default of an architecture where absent."""
    default = {"arm64": 8, "arm": 7}.get(platform.architecture, 1)
    if not platform.variant.startswith("v"):
        return default
    digits = "".join(takewhile(str.isdecimal, platform.variant[1:]))
    return int(digits) if digits else default


def _known_system(name: str) -> bool:
    return name in {"linux", "windows", "darwin", "macos", "freebsd", "openbsd", "netbsd", "android", "solaris", "js"}
