"""The process that becomes a container, and the one that watches over it.

``launch`` starts a bare interpreter (``python -I -S``) on ``main``. It reads its orders from
a socket: operations of ``plan``, marshalled. It clones; the copy performs the operations
and ends in exec as pid 1 of the container; the original, the *watcher*, tells the launcher
what happens and kills the container when the launcher is gone.

Nothing but ``posix``, ``sys``, ``marshal``, ``store.kernel`` and this module's two parts is
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

from runner.runtime.accounts import read_accounts, resolve_user, users
from runner.runtime.child_root import (
    CONTROL,
    Refused,
    Sandbox,
    attach_source,
    bind_device,
    bind_root,
    directory,
    frame,
    isolate_mounts,
    join_keyring,
    join_namespace,
    kind_of,
    make_console,
    make_device,
    make_link,
    make_readonly,
    mask_path,
    mount_filesystem,
    mount_overlay,
    open_source,
    pivot_root,
    readonly_root,
    remount_readonly,
    set_domainname,
    set_hostname,
    write_sysctl,
)
from store import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

LEASE = 4
"""Held open only: its lock says that the container lives."""
_FIRST_FOREIGN = 5

_EPERM, _ENOENT, _EACCES = 1, 2, 13
_SIGKILL = 9
_S_IFMT, _S_IFDIR, _S_IFIFO = 0o170000, 0o040000, 0o010000
_X_OK = 1


# --- the watcher ----------------------------------------------------------------------------


def main() -> NoReturn:
    """Carry out one container's orders, from clone to exit. Never returns."""
    posix.closerange(_FIRST_FOREIGN, 2**31 - 1)  # a descriptor of the host's would be a way out
    try:
        orders = _receive_orders()
        if orders is not None:
            _watch(orders)
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


def _watch(orders: list[Any]) -> None:
    """Clone, follow the start, then wait for the end of the container or of the launcher."""
    here = [name for name, _, _ in orders].index(b"clone")
    read, write = posix.pipe2(posix.O_CLOEXEC)
    if not _perform_outside(orders[:here], write):
        return
    flags: int = orders[here][2][0]
    pid = kernel.clone(flags)
    if pid == 0:
        posix.close(read)
        _become(orders[here + 1 :], write)
    posix.close(write)
    _let_go_of_stdio()
    pidfd = posix.pidfd_open(pid)
    _tell("pid", pid)
    outcome = _follow_start(pid, read)
    if outcome is not None:
        _tell(*outcome)
    _tell("exited", _wait_for_end(pid, pidfd))


def _perform_outside(orders: list[Any], report: int) -> bool:
    sandbox = Sandbox(report)
    for name, stage, arguments in orders:
        try:
            _perform(sandbox, name, arguments)
        except OSError as error:
            _tell("failed", *_failure(stage.decode(), name.decode(), error))
            return False
    return True


def _let_go_of_stdio() -> None:
    """Only the container holds its pipes, so that their readers see the end when it ends."""
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    posix.close(null)


def _follow_start(pid: int, report: int) -> tuple[object, ...] | None:
    """The last thing that the copy reports before its end of the pipe closes, by exec or exit.

    None when the launcher died meanwhile, and the copy with it.
    """
    data = b""
    while True:
        if CONTROL in kernel.poll({report: kernel.POLLIN, CONTROL: 0}):
            posix.kill(pid, _SIGKILL)
            return None
        chunk = posix.read(report, 65536)
        if not chunk:
            break
        data += chunk
    posix.close(report)
    outcome: tuple[object, ...] = ("failed", "internal", "container start", "", 0, "the process died")
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        outcome, data = _decode(data[4:end]), data[end:]
    return outcome


def _wait_for_end(pid: int, pidfd: int) -> int:
    """The wait status, after killing the container first if the launcher ends before it."""
    if pidfd not in kernel.poll({pidfd: kernel.POLLIN, CONTROL: 0}):
        posix.kill(pid, _SIGKILL)
    return posix.waitpid(pid, 0)[1]


# --- the process that becomes the container -------------------------------------------------


def _become(orders: list[Any], report: int) -> NoReturn:
    """Perform the operations; the last one is exec."""
    sandbox = Sandbox(report)
    try:
        _die_with_watcher(sandbox)
        posix.umask(0)  # modes below are meant as they are written
        for name, stage, arguments in orders:
            try:
                _perform(sandbox, name, arguments)
            except OSError as error:
                _report(sandbox, "failed", *_failure(stage.decode(), name.decode(), error))
                break
            except Refused as refusal:
                _report(sandbox, "failed", refusal.kind, stage.decode(), "", refusal.status, refusal.text)
                break
    except BaseException as error:  # there is nobody else to tell
        _report(sandbox, "failed", "internal", "container start", "", 0, repr(error))
    posix._exit(125)


def _perform(sandbox: Sandbox, name: bytes, arguments: tuple[Any, ...]) -> None:
    OPERATIONS[name.decode()](sandbox, *arguments)


def _report(sandbox: Sandbox, *event: object) -> None:
    posix.write(sandbox.report, frame(*event))


def _failure(stage: str, operation: str, error: OSError) -> tuple[str, str, str, int, str]:
    path = error.filename
    text = path.decode("utf-8", "replace") if isinstance(path, bytes) else "" if path is None else str(path)
    return "kernel", stage, getattr(error, "syscall", operation), error.errno or 0, text


def _die_with_watcher(sandbox: Sandbox) -> None:
    """SIGKILL when the watcher ends; a change of credentials cancels it, so it is asked for twice."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _SIGKILL)
    if kernel.poll({sandbox.report: 0}, 0):
        posix._exit(137)  # it had ended before we asked: the pipe has no reader


# --- operations: meeting the parent ---------------------------------------------------------


def await_parent(_: Sandbox) -> None:
    if posix.read(CONTROL, 1) != b"g":
        posix._exit(137)  # the launcher has given up or died


def unshare_cgroup(_: Sandbox) -> None:
    kernel.unshare(kernel.CLONE_NEWCGROUP)


def configure_network(_: Sandbox, requests: tuple[bytes, ...]) -> None:
    kernel.route_requests(requests)


# --- operations: the process ----------------------------------------------------------------


def set_rlimit(sandbox: Sandbox, name: bytes, resource: int, soft: int, hard: int) -> None:
    try:
        kernel.prlimit(resource, soft, hard)
    except OSError as error:
        if error.errno != _EPERM:
            raise
        sandbox.warnings.append(f"{name.decode()} stays as it is: it may not be raised to {soft}:{hard} here")


def set_oom_score(sandbox: Sandbox, value: int) -> None:
    try:
        fd = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY | posix.O_CLOEXEC)
        posix.write(fd, b"%d" % value)
        posix.close(fd)
    except PermissionError:
        sandbox.warnings.append(f"the oom score stays as it is: it may not be lowered to {value} here")


def use_user(sandbox: Sandbox, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    sandbox.uid, sandbox.gid, sandbox.groups = uid, gid, groups
    sandbox.home = next((home for _, found, _, home in users(read_accounts("/etc/passwd")) if found == uid), b"/")


def find_user(sandbox: Sandbox, text: bytes, groups: tuple[bytes, ...]) -> None:
    passwd, group = read_accounts("/etc/passwd"), read_accounts("/etc/group")
    sandbox.uid, sandbox.gid, sandbox.groups, sandbox.home = resolve_user(text, groups, passwd, group)


def start_session(sandbox: Sandbox, umask: int, terminal: int) -> None:
    posix.setsid()
    if terminal:
        kernel.ioctl(sandbox.console, kernel.TIOCSCTTY)
        for fd in (0, 1, 2):
            posix.dup2(sandbox.console, fd)
        posix.close(sandbox.console)
    posix.umask(umask)
    if sandbox.uid:
        _give_stdio(sandbox.uid, terminal)


def _give_stdio(uid: int, terminal: int) -> None:
    """Let the user open /dev/stdout again: pipes and the console become theirs, files of the host do not."""
    for fd in (0, 1, 2):
        if terminal or kind_of(fd) == _S_IFIFO:
            posix.chown(fd, uid, -1)


def enter_directory(_: Sandbox, path: bytes) -> None:
    posix.close(directory(kernel.AT_FDCWD, path, 0))
    posix.chdir(path)
    if not posix.getcwd().startswith("/"):  # "(unreachable)": a descriptor has led out of the root
        raise Refused("internal", "the working directory is outside the container")


def no_new_privileges(_: Sandbox) -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def load_seccomp(_: Sandbox, program: bytes) -> None:
    kernel.load_seccomp(program)


def drop_privileges(
    sandbox: Sandbox, bounding: int, effective: int, permitted: int, inheritable: int, ambient: int
) -> None:
    held = 0  # what this process may pass on: asking for all gives no more than that
    for capability in range(64):
        try:
            held |= kernel.prctl(kernel.PR_CAPBSET_READ, capability) << capability
        except OSError:
            break  # past the last one that this kernel has
        if not bounding >> capability & 1:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    posix.setgroups(sandbox.groups)
    posix.setgid(sandbox.gid)
    posix.setuid(sandbox.uid)
    kernel.prctl(kernel.PR_SET_KEEPCAPS, 0)
    kernel.capset(effective & held, permitted & held, inheritable & held)
    raised = ambient & permitted & inheritable & held
    for capability in range(64):
        if raised >> capability & 1:
            kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_RAISE, capability)


def execute(sandbox: Sandbox, args: tuple[bytes, ...], env: tuple[bytes, ...]) -> None:
    variables = dict(item.split(b"=", 1) for item in env if b"=" in item)
    variables.setdefault(b"HOME", sandbox.home)
    program = find_program(args[0], variables.get(b"PATH", b""))
    _die_with_watcher(sandbox)
    kernel.reset_signals()
    kernel.close_on_exec_from(CONTROL)
    _report(sandbox, "started", tuple(sandbox.warnings))  # believed unless a failure follows
    try:
        posix.execve(program, args, variables)
    except OSError as error:
        status = 127 if error.errno == _ENOENT else 126
        raise Refused("command", posix.strerror(error.errno or 0).lower(), status) from error


def find_program(name: bytes, search: bytes) -> bytes:
    """The file that a command means. Refuses as docker does: 126 not executable, 127 not found."""
    if b"/" in name:
        _check_program(name)
        return name
    for place in search.split(b":"):
        candidate = (place or b".") + b"/" + name
        try:
            _check_program(candidate)
        except Refused:
            continue
        return candidate
    raise Refused("command", "executable file not found in $PATH", 127)


def _check_program(path: bytes) -> None:
    try:
        found = posix.stat(path)
    except OSError as error:
        shown = path.decode("utf-8", "replace")
        status = 126 if error.errno == _EACCES else 127
        raise Refused("command", f"stat {shown}: {posix.strerror(error.errno or 0).lower()}", status) from error
    if found.st_mode & _S_IFMT == _S_IFDIR:
        raise Refused("command", "is a directory", 126)
    if not posix.access(path, _X_OK, effective_ids=True):
        raise Refused("command", "permission denied", 126)


OPERATIONS: dict[str, Callable[..., None]] = {
    operation.__name__: operation
    for operation in (
        join_keyring, join_namespace, isolate_mounts, mount_overlay, bind_root, open_source, attach_source,
        mount_filesystem, make_device, bind_device, make_link, make_console, set_hostname, set_domainname,
        write_sysctl, make_readonly, remount_readonly, mask_path, readonly_root, pivot_root, await_parent,
        unshare_cgroup,
        configure_network, set_rlimit, set_oom_score, use_user, find_user, start_session, no_new_privileges,
        load_seccomp, drop_privileges, enter_directory, execute,
    )
}  # fmt: skip
