"""A step without any right: no chroot, no change of ids. Landlock is the wall, a filter sends each path to the supervisor."""

from __future__ import annotations

import os
import socket
from typing import Final, NoReturn

from runner.isolation import filters
from runner.isolation.request import StepRequest
from runner.isolation.supervisor.paths import open_inside
from runner.isolation.supervisor.procfs import DEVICES
from store.linux import processes, seccomp
from store.linux.confine import Allowed, landlock, landlock_abi


def become_emulated(request: StepRequest, control: socket.socket, supervisor: int, builder: int) -> NoReturn:
    """Go on when the supervisor traces this process; then confine it and execute."""
    from runner.isolation.supervisor.child import execute

    processes.prctl(processes.PR_SET_DUMPABLE, 1)
    control.send(b"ready")
    control.recv(16)
    processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o022)
    _enter(request)
    devices = [Allowed(f"/dev/{name}", "file") for name in sorted(DEVICES)]
    landlock([Allowed(request.root, "rw"), Allowed(request.cache, "rx"), *devices])
    program = filters.emulated_filter(
        is_root=not (request.uid or request.gid), supervisor=supervisor, builder=builder, landlock_abi=landlock_abi()
    )
    listener = seccomp.load_seccomp_listener(program)
    socket.send_fds(control, [b"listener"], [listener])
    os.close(listener)
    execute(request)


_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY


def _enter(request: StepRequest) -> None:
    """The working directory, made if it is missing; links stay in the root."""
    root = os.open(request.root, _DIRECTORY | os.O_CLOEXEC)
    done = ""
    for part in [part for part in request.cwd.split("/") if part not in ("", ".")]:
        try:
            os.close(open_inside(root, f"{done}/{part}", _DIRECTORY))
        except FileNotFoundError:
            parent = open_inside(root, done or "/", _DIRECTORY)
            os.mkdir(part, 0o755, dir_fd=parent)
            os.close(parent)
        done = f"{done}/{part}"
    fd = open_inside(root, done or "/", _DIRECTORY)
    os.fchdir(fd)
    os.close(fd)
    os.close(root)
