"""The default network stays up a moment after its last container: a next one often follows at once.

To make a bridge with its rules, and to take it down, costs a third of a short container's time. So
the last container leaves the network to a process, which takes it down when nobody came for two
seconds. That process holds the file of the network that is up locked from its birth on, so there
is one; containers that come and go meanwhile only touch the file. A signal ends the wait.

When it is killed, the network stays up for the next container, whose end starts the process anew, or
until a command cleans up.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import nullcontext, suppress

from image.paths import Path
from runner.network.identity import default_id
from runner.runtime import state
from store.locks import is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

LINGER_S: Final = 2.0
_FILE: Final = 3
"""The process's descriptor of the network's file."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from runner.network.lingering import main; main()"


def linger(file: Path) -> bool:
    """Leave the network that is up by this file to the process; False when none can be had.

    Call it while the runtime directory is locked.
    """
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.utime(fd)
        return not _lock(fd) or _start(file, fd)
    except OSError:
        return False
    finally:
        os.close(fd)


def is_abandoned(root: Path) -> bool:
    """Whether the default network is up and nobody waits to take it down. For a moment when no container lives."""
    file = root / f"bridge-{default_id(root)}"
    return file.exists() and not is_held(file)


def _lock(fd: int) -> bool:
    """Whether nobody had it. It belongs to the open file, so a process that inherits that holds it too."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(file: Path, fd: int) -> bool:
    interpreter = os.path.realpath(sys.executable)
    packages = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [interpreter, "-I", "-S", "-c", _PROGRAM, packages, str(file)]
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    high = os.dup(fd)  # never 3 itself, whose close-on-exec would stay
    try:
        os.posix_spawn(
            interpreter, words, {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[*null, (os.POSIX_SPAWN_DUP2, high, _FILE)], setsid=True, setsigmask=_SIGNALS,
        )  # fmt: skip
    finally:
        os.close(high)
    return True


def main() -> NoReturn:
    """Wait until the network is used again, or has not been for long enough: then take it down."""
    os.closerange(_FILE + 1, 2**31 - 1)  # what a user's shell has handed on is not ours to hold
    os.chdir("/")
    from runner.network import bridge, networks  # now: what is installed may go meanwhile

    file = Path(sys.argv[2])
    network = networks.decode(os.pread(_FILE, os.fstat(_FILE).st_size, 0).decode())
    rest_s = LINGER_S
    while rest_s > 0:
        wanted_now = signal.sigtimedwait(_SIGNALS, rest_s) is not None
        with state.locked(file.parent) if file.exists() else nullcontext():
            rest_s = 0.0 if wanted_now else _rest_s(file)
            if rest_s <= 0:
                if _is_ours(file):
                    bridge.take_down_unused(file.parent, network)
                os.close(_FILE)
    os._exit(0)


def _is_ours(file: Path) -> bool:
    """Whether it is the network that we watch: another came up by this name, or ours and all records were thrown away."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(_FILE))
    except FileNotFoundError:
        return True


def _rest_s(file: Path) -> float:
    """How long the network has to stay up yet, if nobody is on it. A clock that was set back ends the wait."""
    with suppress(OSError):
        left = os.stat(file).st_mtime + LINGER_S - time.time()
        return left if left <= LINGER_S else 0.0
    return 0.0
