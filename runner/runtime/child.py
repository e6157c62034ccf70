"""The process that becomes a container, and the one that watches over it.

``launch`` starts a bare interpreter (``python -I -S``) on ``main``. It reads its orders from
a socket: operations of ``plan``, marshalled. It clones; the copy performs the operations
and ends in exec as pid 1 of the container; the original, the *watcher*, tells the launcher
what happens and kills the container when the launcher is gone.

Nothing but ``posix``, ``sys``, ``marshal``, ``store.linux`` and this module's two parts is
imported: start-up is most of what a start costs, and there is less to go wrong before exec.

Events on the socket, each a marshalled tuple behind its length in four bytes:

    ("pid", pid)                          cloned; waits for the launcher's word ("g") at await_parent
    ("console",)                          with the pty's master as SCM_RIGHTS
    ("started", warnings)                 exec has happened
    ("failed", kind, stage, syscall, errno, text)
    ("exited", wait status)
"""

from __future__ import annotations

import marshal
import posix
import sys

from runner.runtime.child_process import (
    await_hooks,
    await_parent,
    await_start,
    become_root,
    check_program,
    configure_network,
    die_with_watcher,
    drop_privileges,
    enter_container,
    enter_directory,
    execute,
    find_user,
    hand_over_listener,
    hide_process,
    load_seccomp,
    no_new_privileges,
    open_container,
    open_fifo_directory,
    report,
    run_hook,
    set_io_priority,
    set_oom_score,
    set_personality,
    set_rlimit,
    set_scheduler,
    start_session,
    unshare_cgroup,
    use_user,
)
from runner.runtime.child_root import (
    CONTROL,
    Refused,
    Sandbox,
    attach_source,
    bind_device,
    bind_root,
    copy_up,
    finish_copy_up,
    frame,
    isolate_mounts,
    join_keyring,
    join_namespace,
    make_console,
    make_device,
    make_id_map,
    make_link,
    make_readonly,
    map_ids,
    mask_path,
    mount_filesystem,
    mount_overlay,
    mount_own_group,
    move_root,
    offset_clocks,
    open_source,
    pivot_root,
    readonly_root,
    remount_readonly,
    set_domainname,
    set_hostname,
    write_sysctl,
)
from store.linux import descriptors, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

LEASE = 4
"""Held open only: its lock says that the container lives."""
_FIRST_FOREIGN = 5

_SIGKILL = 9


# --- the watcher ----------------------------------------------------------------------------


def main() -> NoReturn:
    """Carry out one container's orders, from clone to exit. Never returns."""
    watch(int(sys.argv[2]))


def watch(extra: int, mounts: int = -1) -> NoReturn:
    """The same for a process that was forked: with so many ``extra`` descriptors, in the mount namespace ``mounts``."""
    try:
        if mounts >= 0:
            processes.setns(mounts, processes.CLONE_NEWNS)
        posix.closerange(_FIRST_FOREIGN + extra, 2**31 - 1)  # a descriptor of the host's would be a way out
        orders = _receive_orders()
        if orders is not None:
            _watch(orders, extra)
    except OSError as error:
        _tell("failed", *_failure("container start", "start", error))
    except BaseException as error:  # there is nobody else to tell
        _tell("failed", "internal", "container start", "", 0, repr(error))
    posix._exit(0)


def _receive_orders() -> list[Any] | None:
    """The operations, or None when the launcher has gone or changed its mind."""
    header = _read_exactly(CONTROL, 8)
    size = int.from_bytes(header, "little")
    body = _read_exactly(CONTROL, size) if size else b""
    return _decode(body) if body and len(body) == size else None


def _decode(data: bytes) -> Any:
    return marshal.loads(data)  # noqa: S302  # only ever from the other end of our own program


def _read_exactly(fd: int, size: int) -> bytes:
    chunks = []
    while size:
        chunk = posix.read(fd, min(size, 1 << 20))
        if not chunk:
            return b""
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _tell(*event: object) -> None:
    data = frame(*event)
    try:
        while data:
            data = data[posix.write(CONTROL, data) :]
    except OSError:
        pass  # the launcher is gone; the poll below sees it too


def _watch(orders: list[Any], extra: int) -> None:
    """Clone, follow the start, then wait for the end of the container or of the launcher.

    A detached process that has started is left to whoever adopts orphans here, or waited for without the launcher.
    """
    names = [name for name, _, _ in orders]
    if b"stay_as_init" in names:
        import runner.runtime.child_init  # noqa: F401  # later its file can't be reached
    here = names.index(b"clone")
    read, write = posix.pipe2(posix.O_CLOEXEC)
    flags, detached, reaped = orders[here][2]
    sandbox = Sandbox(write, extra, detached)
    if not _perform_outside(sandbox, orders[:here]):
        return
    pid = processes.clone(flags)
    if pid == 0:
        posix.close(read)
        _become(sandbox, orders[here + 1 :])
    posix.close(write)
    forget_stdio(sandbox)
    pidfd = posix.pidfd_open(pid)
    _tell("pid", pid)
    outcome = _follow_start(pid, read)
    if outcome is not None:
        _tell(*outcome)
    if not (detached and outcome is not None and outcome[0] == "started"):
        _tell("exited", _wait_for_end(pid, pidfd))
    elif reaped:
        posix.closerange(CONTROL, 2**31 - 1)
        posix.chdir("/")
        posix.waitpid(pid, 0)


def _perform_outside(sandbox: Sandbox, orders: list[Any]) -> bool:
    for name, stage, arguments in orders:
        try:
            _perform(sandbox, name, arguments)
        except OSError as error:
            _tell("failed", *_failure(stage.decode(), name.decode(), error))
            return False
    return True


def forget_stdio(_: Sandbox) -> None:
    """Only the container holds its pipes, so that their readers see the end when it ends."""
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    posix.close(null)


def _follow_start(pid: int, reports: int) -> tuple[object, ...] | None:
    """The last thing that the copy reports before its end of the pipe closes, by exec or exit.

    What else it reports is passed on at once. None when the launcher died meanwhile, and the
    copy with it.
    """
    data = b""
    outcome: tuple[object, ...] = ("failed", "internal", "container start", "", 0, "the process died")
    while True:
        if CONTROL in descriptors.poll({reports: descriptors.POLLIN, CONTROL: 0}):
            posix.kill(pid, _SIGKILL)
            return None
        chunk = posix.read(reports, 65536)
        if not chunk:
            break
        data += chunk
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "little")):
            event, data = _decode(data[4:end]), data[end:]
            if event[0] in ("started", "failed"):
                outcome = event  # a failure to execute may follow
            else:
                _tell(*event)
    posix.close(reports)
    return outcome


def _wait_for_end(pid: int, pidfd: int) -> int:
    """The wait status, after killing the container first if the launcher ends before it."""
    if pidfd not in descriptors.poll({pidfd: descriptors.POLLIN, CONTROL: 0}):
        posix.kill(pid, _SIGKILL)
    return posix.waitpid(pid, 0)[1]


# --- the process that becomes the container -------------------------------------------------


def _become(sandbox: Sandbox, orders: list[Any]) -> NoReturn:
    """Perform the operations; the last one is exec."""
    try:
        die_with_watcher(sandbox)
        posix.umask(0)  # modes below are meant as they are written
        for name, stage, arguments in orders:
            try:
                _perform(sandbox, name, arguments)
            except OSError as error:
                report(sandbox, "failed", *_failure(stage.decode(), name.decode(), error))
                break
            except Refused as refusal:
                report(sandbox, "failed", refusal.kind, stage.decode(), "", refusal.status, refusal.text)
                break
    except BaseException as error:  # there is nobody else to tell
        report(sandbox, "failed", "internal", "container start", "", 0, repr(error))
    posix._exit(125)


def _perform(sandbox: Sandbox, name: bytes, arguments: tuple[Any, ...]) -> None:
    OPERATIONS[name.decode()](sandbox, *arguments)


def _failure(stage: str, operation: str, error: OSError) -> tuple[str, str, str, int, str]:
    path = error.filename
    text = path.decode("utf-8", "replace") if isinstance(path, bytes) else "" if path is None else str(path)
    return "kernel", stage, getattr(error, "syscall", operation), error.errno or 0, text


def stay_as_init(sandbox: Sandbox, terminal: int) -> None:
    """See ``child_init``, which is loaded for those who ask for it alone."""
    from runner.runtime.child_init import stay_as_init as stay

    stay(sandbox, terminal)


OPERATIONS: dict[str, Callable[..., None]] = {
    operation.__name__: operation
    for operation in (
        forget_stdio, join_keyring, join_namespace, isolate_mounts, mount_overlay, bind_root, open_source, attach_source,
        mount_filesystem, make_device, bind_device, make_link, make_console, set_hostname, set_domainname,
        write_sysctl, make_readonly, remount_readonly, mask_path, readonly_root, pivot_root, await_parent,
        unshare_cgroup, mount_own_group,
        open_container, enter_container, hide_process, open_fifo_directory, await_hooks, await_start, run_hook,
        check_program, move_root, become_root, set_personality, set_scheduler, set_io_priority, offset_clocks, make_id_map,
        map_ids, copy_up, finish_copy_up,
        configure_network, set_rlimit, set_oom_score, use_user, find_user, start_session, no_new_privileges,
        hand_over_listener, load_seccomp, drop_privileges, enter_directory, stay_as_init, execute,
    )
}  # fmt: skip
