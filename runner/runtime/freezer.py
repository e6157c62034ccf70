"""Stop every process of a container where it is, and let it go on: cgroup v1's freezer or v2's cgroup.freeze."""

from __future__ import annotations

import os
import time

from image.errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.001


def is_frozen(groups: Sequence[str]) -> bool:
    place = _place(groups)
    if not place:
        return False
    try:
        with open(place[0]) as file:
            return file.read().strip() in ("FROZEN", "FREEZING", "1")
    except OSError:
        return False


def freeze(groups: Sequence[str]) -> None:
    """Returns once nothing of it runs. Raises NotPermitted."""
    _change(groups, frozen=True)


def thaw(groups: Sequence[str]) -> None:
    """Raises NotPermitted."""
    _change(groups, frozen=False)


def _place(groups: Sequence[str]) -> tuple[str, str, str] | None:
    """The file, and what it holds when frozen and when not."""
    for group in groups:
        for name, frozen, thawed in (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")):
            if os.path.exists(f"{group}/{name}"):
                return f"{group}/{name}", frozen, thawed
    return None


def _change(groups: Sequence[str], *, frozen: bool) -> None:
    place = _place(groups)
    if place is None:
        raise NotPermitted("cannot pause or resume: the container has no freezer control group")
    path, on, off = place
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while True:  # a v1 group that forks while it freezes has to be told again
            with open(path, "w") as file:
                file.write(on if frozen else off)
            if _settled(path, on if frozen else off):
                return
            if time.monotonic() > deadline:
                with open(path, "w") as file:
                    file.write(off)
                raise NotPermitted(f"cannot pause: {path} does not settle within {_PATIENCE_S:.0f} s")
            time.sleep(_PAUSE_S)
    except OSError as error:
        raise NotPermitted(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from error


def _settled(path: str, wanted: str) -> bool:
    if path.endswith("cgroup.freeze"):
        with open(f"{os.path.dirname(path)}/cgroup.events") as file:
            return f"frozen {wanted}" in file.read()
    with open(path) as file:
        return file.read().strip() == wanted
