"""One mount that somebody asks for, as a value. What docker refuses about it is refused here.

Source: moby 28 ``volume/mounts/validate.go`` and ``linux_parser.go``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from image.errors import InvalidInput
from image.value import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal, TypeAlias

    Kind: TypeAlias = Literal["bind", "volume", "tmpfs"]
    Pairs: TypeAlias = tuple[tuple[str, str], ...]

KINDS: Final = ("bind", "volume", "tmpfs")
"""What can be mounted: each a ``Kind``."""
PROPAGATION: Final = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_TMPFS_DEFAULTS: Final = ("noexec", "nosuid", "nodev")


@dataclass(frozen=True, slots=True)
class MountRequest:
    """A mount on ``target``, absolute and without ``..``.

    ``source`` is a path of the host (bind), a volume's name, or "" (tmpfs, anonymous volume);
    ``make_source`` makes an absent path a directory. ``below`` says what becomes of the mounts
    below a bind's source: enabled, disabled, writable or readonly, as docker's bind-recursive.
    ``mode`` is the third part of ``-v`` as it was written.
    """

    kind: Kind
    target: str
    source: str = ""
    read_only: bool = False
    make_source: bool = False
    propagation: str = ""
    below: str = "enabled"
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""
    driver_options: Pairs = ()
    labels: Pairs = ()
    tmpfs_options: tuple[str, ...] = ()
    mode: str = ""


def check_target(target: str, text: str) -> str:
    """The target without superfluous parts. Raises InvalidInput."""
    if not target.startswith("/"):
        raise InvalidInput(f"invalid mount {text!r}: mount path {target!r} must be absolute")
    normal = posixpath.normpath("/" + target.lstrip("/"))
    if normal == "/":
        raise InvalidInput(f"invalid mount {text!r}: the destination can't be '/'")
    return normal


def parse_tmpfs(text: str) -> MountRequest:
    """``PATH[:OPTIONS]`` of ``--tmpfs``; docker adds noexec, nosuid and nodev. Raises InvalidInput."""
    target, _, given = text.partition(":")
    words = tuple(word for word in given.split(",") if word)
    return MountRequest("tmpfs", check_target(target, text), tmpfs_options=(*_TMPFS_DEFAULTS, *words))


def merge(
    given: Sequence[MountRequest], *, inherited: Iterable[MountRequest] = (), image: Iterable[str] = ()
) -> tuple[MountRequest, ...]:
    """All mounts of a container, those nearer to the root first.

    What the user gives hides what ``--volumes-from`` brings, and both hide the image's VOLUME
    paths, which become anonymous volumes. Raises InvalidInput for two mounts on one target.
    """
    chosen: dict[str, MountRequest] = {}
    for request in given:
        if request.target in chosen:
            raise InvalidInput(f"duplicate mount point: {request.target}")
        chosen[request.target] = request
    for request in inherited:
        chosen.setdefault(request.target, request)
    for path in image:
        target = check_target(path, path)
        chosen.setdefault(target, MountRequest("volume", target))
    return tuple(sorted(chosen.values(), key=lambda request: request.target.count("/")))


def inherit(requests: Iterable[MountRequest], mode: str) -> tuple[MountRequest, ...]:
    """The mounts of another container, for ``--volumes-from NAME[:ro|rw|z|Z]``. Raises InvalidInput."""
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidInput(f"invalid mode {mode!r} of --volumes-from: there are ro and rw")
    return tuple(
        replace(request, read_only=request.read_only or mode == "ro", no_copy=True)
        for request in requests
        if request.kind != "tmpfs"
    )
