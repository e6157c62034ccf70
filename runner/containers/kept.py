"""What a monitor knows of its container, on the way from one of its programs to the next.

A monitor is one process for as long as its container is to run, and two programs in turn:
``monitor``, a whole interpreter that starts the container and gives back what it had, and
``keeper``, a bare one that is there while it runs. Each executes the other. Descriptors stay open
meanwhile, and with them the locks; children stay children.

Imports only what a bare interpreter has.
"""

from __future__ import annotations

import marshal
import posix
import sys

from image.value import dataclass, member_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Self

FIRST = 3
"""Descriptors from here on are the monitor's own."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one life of a container. Descriptors are numbers, -1 for none; so is a process 0.

    ``held`` are all descriptors that are to be closed at the container's end. ``outputs`` are of
    ``(descriptor, stream)``, ``clients`` as ``Client.state``, ``log`` of ``(path, size, files)``,
    ``resolver`` of a directory and two sockets; ``pauses_s`` are ``HealthTimer``'s.
    """

    store_root: str
    root: str
    id: str
    lock: int
    lease: int = -1
    held: tuple[int, ...] = ()
    control: int = -1
    watcher: int = 0
    pidfd: int = -1
    console: int = -1
    outputs: tuple[tuple[int, bytes], ...] = ()
    input: int = -1
    listener: int = -1
    clients: tuple[tuple[int, bool, bool, bytes, bytes], ...] = ()
    log: tuple[str, int, int] | None = None
    resolver: tuple[str, int, int] | None = None
    pauses_s: tuple[float, float, float] | None = None
    network_process: int = 0
    supervisor: int = 0
    restarts: int = 0
    delay_s: float = 0.0
    began_s: float = 0.0
    code: int = 0
    finished_s: float = 0.0
    stopped: bool = False

    @classmethod
    def received(cls, fd: int) -> Self:
        """What ``become`` passed on; the descriptors are no child's from now on."""
        _leave_to_children(inheritable=False)
        with open(fd, "rb") as file:
            return cls(**marshal.load(file))  # noqa: S302  # from ourselves


def become(module: str, kept: Kept) -> NoReturn:
    """Execute ``main`` of another module, in a bare interpreter. Raises OSError."""
    fd = posix.memfd_create("kept", 0)
    with open(fd, "wb", closefd=False) as file:
        marshal.dump({name: getattr(kept, name) for name in member_names(Kept)}, file)
    posix.lseek(fd, 0, 0)
    _leave_to_children(inheritable=True)
    program = f"import sys; sys.path.append(sys.argv[1]); from {module} import main; main()"
    words = [sys.argv[1], str(fd), kept.store_root, kept.id]  # the last two are for whoever looks at processes
    posix.execve(sys.executable, [sys.executable, "-I", "-S", "-c", program, *words], posix.environ)


def open_descriptors() -> set[int]:
    """Those of this process that are its own."""
    return {fd for fd in map(int, posix.listdir("/proc/self/fd")) if fd >= FIRST and _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        posix.fstat(fd)
    except OSError:
        return False  # the one that has just listed them
    return True


def _leave_to_children(*, inheritable: bool) -> None:
    for fd in open_descriptors():
        posix.set_inheritable(fd, inheritable)
