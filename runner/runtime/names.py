"""Where containers are noted down, and what they may be called."""

from __future__ import annotations

from image.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

_ALLOWED: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def runtime_path(environ: Mapping[str, str], uid: int) -> str:
    """``/run/tierce`` for root, else below ``XDG_RUNTIME_DIR``; ``TIERCE_RUNTIME_DIR`` wins. Text, without ``pathlib``."""
    if chosen := environ.get("TIERCE_RUNTIME_DIR"):
        return chosen
    return "/run/tierce" if uid == 0 else f"{environ.get('XDG_RUNTIME_DIR') or f'/run/user/{uid}'}/tierce"


def check_id(container_id: str) -> str:
    """The id, when it may be a file name. Raises InvalidInput."""
    if not container_id or container_id in (".", "..") or not _ALLOWED.issuperset(container_id):
        raise InvalidInput(f"container id {container_id!r} has characters other than letters, digits and _+-.")
    return container_id
