"""Names in a layer that say what is gone: ``.wh.NAME``, and ``.wh..wh..opq`` for all that lower layers have here.

Spec: image-spec "Image Layer Filesystem Changeset", whiteouts.
"""

from __future__ import annotations

from typing import Final

from image.errors import InvalidArchive
from image.value import dataclass

WHITEOUT_PREFIX: Final = b".wh."
OPAQUE_MARKER: Final = b".wh..wh..opq"
_BOOKKEEPING_PREFIX: Final = b".wh..wh."  # of AUFS; docker skips it too


@dataclass(frozen=True, slots=True)
class Whiteout:
    """``victim`` in the directory ``parent`` is gone; "" is all that the directory had. ``None`` is nobody: skip it."""

    parent: bytes
    victim: bytes | None


def read_whiteout(path: bytes) -> Whiteout | None:
    """What a cleaned path of a layer says is gone; None for a file like others. Raises InvalidArchive.

    Nothing to do with whiteouts is a path without ``WHITEOUT_PREFIX``: ask for that first, it is cheaper.
    """
    *above, name = path.split(b"/")
    parent = b"/".join(above)
    if any(part.startswith(_BOOKKEEPING_PREFIX) and part != OPAQUE_MARKER for part in (*above, name)):
        return Whiteout(parent, None)
    if any(part.startswith(WHITEOUT_PREFIX) for part in above):
        raise InvalidArchive("a directory above it has a whiteout's name")
    if not name.startswith(WHITEOUT_PREFIX):
        return None
    if name == OPAQUE_MARKER:
        return Whiteout(parent, b"")
    victim = name.removeprefix(WHITEOUT_PREFIX)
    if victim in (b"", b".", b".."):  # ".wh..." would name the directory above
        raise InvalidArchive("whiteout of no valid name")
    return Whiteout(parent, victim)
