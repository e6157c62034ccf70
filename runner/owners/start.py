"""The launcher's side: whether a container needs a supervisor, and its start."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image.errors import NotPermitted
from runner.owners.filter import program
from runner.runtime.operations import Operation, hand_over_listener
from runner.runtime.privileges import Privileges
from store.owners import TABLE

if TYPE_CHECKING:
    from store.layers import OverlayMount

_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from runner.owners.supervisor import main; main()"
_PACKAGES: Final = str(Path(__file__).resolve().parents[2])
_ABOVE: Final = 10


class Supervision:
    """Of one container. ``filter`` is for its process; ``begin`` takes what the filter's listener is."""

    def __init__(self, rootfs: OverlayMount) -> None:
        self._rootfs = rootfs
        self.pid = 0
        recorded = any((rootfs.base / lower / ".." / TABLE).exists() for lower in rootfs.lowers)
        self.filter = program(os.uname().machine, renames=recorded)

    def begin(self, pid: int, listener: int) -> None:
        """Spawn the supervisor. It ends by itself when the last process of the container has."""
        layer = os.open(self._rootfs.base / str(self._rootfs.upper) / "..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in (listener, layer)]
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(moved, 3)),
        ]
        interpreter = os.path.realpath(sys.executable)
        argv = [interpreter, "-I", "-S", "-c", _PROGRAM, _PACKAGES, str(pid)]
        argv += [str(self._rootfs.base), *self._rootfs.lowers]
        try:
            self.pid = os.posix_spawn(interpreter, argv, {}, file_actions=actions, setsid=True, setsigmask=())
        except OSError as error:
            raise NotPermitted(
                f"cannot start the owners' supervisor: {os.strerror(error.errno or 0).lower()}"
            ) from error
        finally:
            for fd in (layer, *moved):
                os.close(fd)

    def end(self) -> None:
        """Wait for it, once the container has ended. Idempotent."""
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0


_USER_CHANGES: Final = frozenset({"no_new_privileges", "load_seccomp", "drop_privileges"})


def with_listener(steps: Sequence[Operation], program: bytes) -> tuple[Operation, ...]:
    """The filter goes in before the user changes, as that is a call which it answers. Pure."""
    at = next(position for position, step in enumerate(steps) if step.name in _USER_CHANGES)
    return (*steps[:at], hand_over_listener(program), *steps[at:])


def supervision(privileges: Privileges, rootfs: OverlayMount | str | os.PathLike[str]) -> Supervision | None:
    """None where owners are real, or where the layer is not ours to keep records in."""
    if privileges.initial_user_namespace or privileges.mapped_gids != 1:
        return None
    if isinstance(rootfs, str | os.PathLike) or rootfs.upper is None:
        return None
    found = Supervision(rootfs)
    return found if found.filter else None
