"""Names of volumes: docker's rule."""

from __future__ import annotations

import re
import secrets
from typing import Final

from image.errors import InvalidInput

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ANONYMOUS_BYTES: Final = 32


def check_name(name: str) -> str:
    """The name itself. Raises InvalidInput."""
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidInput(
            f"invalid volume name {name!r}: want two or more of [a-zA-Z0-9_.-], not starting with [_.-] "
            "(a directory of the host is given as an absolute path)"
        )
    return name


def anonymous_name() -> str:
    """A name nobody has: 64 hexadecimal digits, as docker gives."""
    return secrets.token_hex(_ANONYMOUS_BYTES)
