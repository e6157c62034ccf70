"""The supervisor's life: read a request, start the step, answer its calls, report how it ended.

It starts with an empty environment, so that a step that could look into it would find
nothing of the builder's. Descriptor 3 is the request and afterwards the builder's life: when
it closes, all processes of the step are killed. Descriptor 4 takes the report: a line of
words, ``exit STATUS`` or ``failed WHAT ERRNO TEXT``.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from runner.isolation.request import StepRequest
from runner.isolation.supervisor.child import become_step
from runner.isolation.supervisor.procfs import ProcessView
from runner.runtime.notify import Listener
from store.linux import processes
from store.linux.confine import child_signals

CONTROL: Final = 3
REPORT: Final = 4
_FAILED: Final = 126
_TICK_MS: Final = 200


def main() -> NoReturn:
    """Never returns."""
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    processes.prctl(processes.PR_SET_CHILD_SUBREAPER, 1)
    request = StepRequest.from_json(_read_request())
    try:
        status = _supervised(request)
        report = f"exit {status}"
    except _Refused as error:
        report = str(error)
    except OSError as error:
        report = f"failed {error.errno or 0} {error}"
    finally:
        end_all()
    os.write(REPORT, report.encode())
    os._exit(0)


def _read_request() -> bytes:
    size = int.from_bytes(os.read(CONTROL, 8), "little")
    data = b""
    while len(data) < size and (piece := os.read(CONTROL, size - len(data))):
        data += piece
    return data


def _supervised(request: StepRequest) -> int:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wakeup = child_signals()
    supervisor, builder = os.getpid(), os.getppid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        become_step(request, its, supervisor=supervisor, builder=builder)
    its.close()
    if request.rung == "emulated":
        return _emulated(request, ours, pid, wakeup)
    listener = _receive_listener(ours)
    view = ProcessView(listener, request.root, pid)
    return _loop(listener, pid, ours, wakeup, view.one, _reap)


def _emulated(request: StepRequest, control: socket.socket, pid: int, wakeup: int) -> int:
    from runner.isolation.supervisor.emulation import Emulation
    from runner.isolation.supervisor.tracing import Tracer

    tracer = Tracer(request)
    first = control.recv(4096)
    if first != b"ready":
        raise _told(first)
    tracer.seize(pid)
    control.send(b"go")
    listener = _receive_listener(control)
    emulation = Emulation(listener, request, pid, tracer.program_of)
    try:
        return _loop(listener, pid, control, wakeup, emulation.one, tracer.reap)
    finally:
        tracer.remove_copies()


def _receive_listener(control: socket.socket) -> Listener:
    """Raises OSError with what the step's process could not do before it had a listener."""
    data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
    if not descriptors:
        raise _told(data)
    return Listener(descriptors[0])


class _Refused(Exception):
    """The command could not be executed; the text is the report."""


def _told(data: bytes) -> OSError | _Refused:
    if data.startswith(b"command "):
        return _Refused(data.decode("utf-8", "replace"))
    code, _, text = data.decode("utf-8", "replace").partition(" ")
    return OSError(int(code or 0), text or "the step's process ended before it began")


def _loop(
    listener: Listener,
    pid: int,
    control: socket.socket,
    wakeup: int,
    answer: Callable[[], None],
    reap: Callable[[int], int | None],
) -> int:
    """Answer and collect until the first process has ended; its status."""
    poll = select.poll()
    for fd in (listener.fd, CONTROL, wakeup, control.fileno()):
        poll.register(fd, select.POLLIN)
    status: int | None = None
    while status is None:
        for fd, events in poll.poll(_TICK_MS):
            if fd == listener.fd:
                if events & select.POLLIN:
                    answer()
                else:
                    poll.unregister(fd)  # nobody is left who could ask
            elif fd == CONTROL:
                return _FAILED  # the builder has gone, or wants no more of this
            elif fd == control.fileno():
                data = control.recv(4096)
                if data:
                    raise _told(data)
                poll.unregister(fd)  # it is executing
            else:
                with suppress(BlockingIOError):
                    os.read(wakeup, 4096)
        status = reap(pid)
    with suppress(BlockingIOError):
        if data := control.recv(4096, socket.MSG_DONTWAIT):  # it told why and ended since we polled
            raise _told(data)
    return status


def _reap(first: int) -> int | None:
    """Collect who has ended; the status once it is the first process."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return _FAILED
        if pid == 0:
            return None
        if pid == first:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def end_all() -> None:
    """Kill every process of the step. Orphans become our children, so none escapes this."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0x40000000)  # __WALL: traced threads too
        except ChildProcessError:
            return


def _children() -> list[int]:
    with suppress(OSError), open("/proc/thread-self/children") as file:
        return [int(word) for word in file.read().split()]
    ours = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == ours:
                    found.append(int(name))
    return found
