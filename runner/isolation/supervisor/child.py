"""The step's own process, from fork to exec: confined, inside its root, without a way back."""

from __future__ import annotations

import os
import resource
import signal
import socket
from typing import Final, NoReturn

from runner.isolation import filters
from runner.isolation.request import StepRequest
from store.linux import descriptors, processes, seccomp
from store.linux.confine import Allowed, landlock, landlock_abi

_CAP_SYS_CHROOT: Final = 18
_KEPT: Final = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 31))
"""What docker gives a container, but for chroot, mknod and audit: chown, dac_override, fowner,
fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, setfcap. Without
sys_chroot there is no second chroot to break out by."""


_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandRefused(Exception):  # a fact told to the builder, not an error of ours
    """The command can't be executed; ``status`` as docker's."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.why = why
        self.status = status


def become_step(request: StepRequest, control: socket.socket, *, supervisor: int, builder: int) -> NoReturn:
    """Turn this forked process into the step. A failure is told on ``control``, which exec closes."""
    try:
        os.setsid()
        processes.prctl(processes.PR_SET_PDEATHSIG, signal.SIGKILL)
        if request.rung == "emulated":
            from runner.isolation.supervisor.emulated_child import become_emulated

            become_emulated(request, control, supervisor, builder)
        _become_chrooted(request, control, supervisor, builder)
    except CommandRefused as error:
        control.send(f"command {error.status} {error.why}".encode())
    except OSError as error:
        control.send(f"{error.errno or 0} {error}".encode()[:4000])
    finally:
        os._exit(126)


def _become_chrooted(request: StepRequest, control: socket.socket, supervisor: int, builder: int) -> NoReturn:
    processes.prctl(processes.PR_SET_DUMPABLE, 1)
    abi = landlock_abi()
    permitted = _permitted()  # /proc is out of reach later
    os.chdir(request.root)
    processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
    if abi >= 2:  # the first version refuses every rename from one directory to another
        landlock([Allowed(request.root, "rw")])
    os.chroot(".")
    os.umask(0o022)
    enter(request.cwd)
    _drop_capabilities(permitted)
    os.setgroups(request.groups)
    os.setresgid(request.gid, request.gid, request.gid)
    os.setresuid(request.uid, request.uid, request.uid)
    processes.prctl(processes.PR_SET_DUMPABLE, 1)  # which a change of uid takes away
    listener = seccomp.load_seccomp_listener(
        filters.chroot_filter(supervisor=supervisor, builder=builder, landlock_abi=abi)
    )
    socket.send_fds(control, [b"listener"], [listener])
    execute(request)


def _drop_capabilities(permitted: int) -> None:
    for bit in range(64):
        if not _KEPT >> bit & 1:
            try:
                processes.prctl(processes.PR_CAPBSET_DROP, bit)
            except OSError:
                break
    kept = permitted & _KEPT
    processes.capset(kept, kept, 0)


def enter(directory: str) -> None:
    """Go to the working directory, which is made if it is missing, as docker does."""
    os.makedirs(directory or "/", exist_ok=True)
    os.chdir(directory or "/")


def _permitted() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm:"))


def execute(request: StepRequest) -> NoReturn:
    """exec, with the command found by PATH. Raises CommandRefused as docker has it: 127 not found, 126 not executable."""
    processes.reset_signals()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    descriptors.close_on_exec_from(3)
    env = dict(item.partition("=")[::2] for item in request.env)
    name = request.args[0]
    failure: OSError | None = None
    for directory in [""] if "/" in name else env.get("PATH", _PATH).split(":"):
        try:
            os.execve(f"{directory}/{name}" if directory else name, list(request.args), env)  # noqa: S606  # no shell is meant
        except (FileNotFoundError, NotADirectoryError) as error:
            failure = failure or error
        except OSError as error:
            failure = error
    if failure is None or isinstance(failure, FileNotFoundError | NotADirectoryError):
        raise CommandRefused("no such file or directory" if "/" in name else "executable file not found in $PATH", 127)
    raise CommandRefused(os.strerror(failure.errno or 0).lower(), 126)
