"""The network namespace that an ordinary user's containers share for the networks that the user defined.

    <runtime directory>/user-network/lock          held (flock) while the namespace is looked for or made
                                     users/lock    held shared by whoever has a container on its networks
                                     holder        held by the process that keeps it; says a pid inside
                                     way/          what the program that leads outside needs

A holder process connects the namespace to the outside (``outward``) and waits for ``users`` to
itself: nobody needs the namespace then, and it ends. Locks end with their processes, so a kill of
anybody leaves nothing to clean up. Bridges, addresses and rules in there are made as on root's
host, by a thread that goes there; the host's network namespace could not be entered again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from image.errors import KernelError, NotPermitted, TierceError
from runner.network import outward
from store.linux import processes
from store.locks import Alone, is_held

_T = TypeVar("_T")
_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); import importlib; importlib.import_module(sys.argv[2]).main(sys.argv[3:])"
_PACKAGES: Final = str(Path(__file__).resolve().parents[2])
_LONGEST: Final = 1000


def bare_interpreter(module: str, *arguments: str) -> list[str]:
    """The command line of ``main`` of one of our modules."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", _PROGRAM, _PACKAGES, module, *arguments]


class UserNetwork:
    """The namespace, ``fd``, kept until ``close``."""

    def __init__(self, root: Path, *, make: bool = True) -> None:
        """In the runtime directory ``root``; made when there is none. Raises NotPermitted.

        Without ``make`` and a namespace, ``fd`` is -1.
        """
        self.fd = -1
        directory = root / "user-network"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "users").mkdir(mode=0o700, exist_ok=True)
        self._users = os.open(directory / "users/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._users, fcntl.LOCK_SH)  # a holder that is ending has it alone, for a moment
            with Alone(directory / "lock"):
                pid = _held(directory) or (_start_holder(directory) if make else 0)
                if pid:
                    self.fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def inside(self, act: Callable[[], _T]) -> _T:
        """What ``act`` returns in there, or raises."""
        found: list[_T] = []
        raised: list[BaseException] = []

        def go() -> None:
            try:
                self._enter()
                found.append(act())
            except BaseException as error:  # raised again in the caller's thread
                raised.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        return found[0]

    def _enter(self) -> None:
        try:
            processes.setns(self.fd, processes.CLONE_NEWNET)
        except OSError as error:
            raise KernelError("network", "setns", error.errno or 0, "the user's network namespace") from error

    def close(self) -> None:
        """Idempotent."""
        for fd in (self.fd, self._users):
            if fd >= 0:
                os.close(fd)
        self.fd = self._users = -1


def _held(directory: Path) -> int:
    """A pid inside, while the holder lives; else 0."""
    return int((directory / "holder").read_text()) if is_held(directory / "holder") else 0


# --- the holder -----------------------------------------------------------------------------


def _start_holder(directory: Path) -> int:
    """The pid inside, once there is a way outside. Raises NotPermitted."""
    _forget_bridges(directory.parent)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        moved = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 10)
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)
        ]
        actions.append((os.POSIX_SPAWN_DUP2, moved, 3))
        argv = bare_interpreter("runner.network.user_network", str(directory))
        os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsid=True, setsigmask=())
        os.close(moved)
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as said:
        text = said.read(_LONGEST)
    if not text.isdigit():
        raise NotPermitted(text or "cannot make a network namespace: its holder ended")
    return int(text)


def _forget_bridges(root: Path) -> None:
    """Of an earlier namespace, with which they went."""
    for name in ("bridge-*", ".bridge-*"):
        for left in root.glob(name):
            left.unlink(missing_ok=True)


def main(argv: Sequence[str]) -> None:
    """The holder. Says a pid inside on descriptor 3, or what is wrong."""
    os.set_inheritable(3, False)  # who waits for its end shall not wait for pasta's
    directory = Path(argv[0])
    anchor, process = 0, None
    try:
        try:
            anchor = _anchor()
            shutil.rmtree(directory / "way", ignore_errors=True)  # a killed one's
            (directory / "way").mkdir(mode=0o700)
            process = outward.start(f"/proc/{anchor}/ns/net", directory / "way")
            holder = os.open(directory / "holder", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(holder, fcntl.LOCK_EX)
            os.write(holder, str(anchor).encode())
        except (OSError, TierceError) as error:
            os.write(3, f"cannot make a network namespace: {error}".encode())
            return
        os.write(3, str(anchor).encode())
        os.close(3)
        users = os.open(directory / "users/lock", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        if process is not None:
            process.end()
        if anchor:
            os.kill(anchor, signal.SIGKILL)
            os.waitpid(anchor, 0)
        shutil.rmtree(directory / "way", ignore_errors=True)
        (directory / "holder").unlink(missing_ok=True)
        _forget_bridges(directory.parent)
        os._exit(0)


def _anchor() -> int:
    """A child that does nothing, in a network namespace of its own whose loopback interface is up."""
    from runner.network import link
    from runner.runtime.rtnetlink import LOOPBACK_INDEX, link_up

    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            processes.prctl(processes.PR_SET_PDEATHSIG, signal.SIGKILL)
            processes.unshare(processes.CLONE_NEWNET)
            link.request(link_up(LOOPBACK_INDEX))
            os.write(writer, b"r")
            os.close(3)
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        if not os.read(reader, 1):
            raise NotPermitted("network namespaces are refused here")
    finally:
        os.close(reader)
    return pid
