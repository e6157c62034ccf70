"""The mark of an overlay directory that hides all that is below it.

Its name says who may write it: ``trusted.*`` is for the machine's root, and read by mounts of its
own; ``user.*`` for everybody else, and read by mounts with ``userxattr``. So a layer shows what it
should only to mounts of the form in which it was made (``store.form``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from store.owners import may_use_trusted

NAMES: Final = ("trusted.overlay.opaque", "user.overlay.opaque")


def is_opaque(directory: int | str, listed: Sequence[str] = NAMES) -> bool:
    """By either name; ``listed`` are the attributes that the directory has, if known."""
    for name in NAMES:
        if name in listed:
            with suppress(OSError):
                if os.getxattr(directory, name) == b"y":
                    return True
    return False


def mark_opaque(directory: int | str | bytes) -> None:
    """In the form of this process. Raises OSError."""
    os.setxattr(directory, NAMES[0] if may_use_trusted() else NAMES[1], b"y")
