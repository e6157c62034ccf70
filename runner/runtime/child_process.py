"""The process itself: what it may do, who it is, and exec. Part of ``child``.

Also how it meets its parent on the way, and how a process joins a container that runs.
"""

from __future__ import annotations

import posix

from runner.runtime.accounts import read_accounts, resolve_user, users
from runner.runtime.child_root import CONTROL, Refused, Sandbox, directory, frame, kind_of
from store.linux import descriptors, paths, processes, routes, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_EPERM, _ENOENT, _EACCES, _EINVAL = 1, 2, 13, 22
_SIGKILL = 9
_S_IFMT, _S_IFDIR, _S_IFIFO = 0o170000, 0o040000, 0o010000
_X_OK = 1
_FIRST_EXTRA = 5
"""Below are the control socket and the lease; extra descriptors wait from here on."""


def report(sandbox: Sandbox, *event: object) -> None:
    """An event for the watcher; once nobody listens any more, a failure goes to the process's stderr."""
    if sandbox.report >= 0:
        posix.write(sandbox.report, frame(*event))
    elif event[0] == "failed":
        posix.write(2, f"cannot start container: {event[-1]}\n".encode())


def die_with_watcher(sandbox: Sandbox) -> None:
    """SIGKILL when the watcher ends; a change of credentials cancels it, so it is asked for twice."""
    processes.prctl(processes.PR_SET_PDEATHSIG, _SIGKILL)
    if descriptors.poll({sandbox.report: 0}, 0):
        posix._exit(137)  # it had ended before we asked: the pipe has no reader


# --- joining a container that runs ----------------------------------------------------------


def open_container(sandbox: Sandbox, pid: int, flags: int) -> None:
    sandbox.container = posix.pidfd_open(pid)  # the launcher sees whether it is still the same by our first event
    if flags:
        processes.setns(sandbox.container, flags)


def enter_container(sandbox: Sandbox, flags: int) -> None:
    processes.setns(sandbox.container, flags)
    posix.close(sandbox.container)
    sandbox.root = paths.openat2(paths.AT_FDCWD, b"/", paths.O_PATH | posix.O_DIRECTORY)


def hide_process(_: Sandbox) -> None:
    processes.prctl(processes.PR_SET_DUMPABLE, 0)


# --- operations: meeting the parent ---------------------------------------------------------


def await_parent(_: Sandbox) -> None:
    if posix.read(CONTROL, 1) != b"g":
        posix._exit(137)  # the launcher has given up or died


def become_root(_: Sandbox) -> None:
    if posix.read(CONTROL, 1) != b"m":
        posix._exit(137)  # the launcher has given up or died
    posix.setgroups([])
    posix.setresgid(0, 0, 0)
    posix.setresuid(0, 0, 0)  # from an id that is not mapped: every capability stays


def unshare_cgroup(_: Sandbox) -> None:
    processes.unshare(processes.CLONE_NEWCGROUP)


def configure_network(_: Sandbox, requests: tuple[bytes, ...]) -> None:
    routes.route_requests(requests)


def open_fifo_directory(sandbox: Sandbox, path: bytes) -> None:
    sandbox.fifo_directory = paths.openat2(paths.AT_FDCWD, path, paths.O_PATH | posix.O_DIRECTORY)


def await_hooks(sandbox: Sandbox) -> None:
    report(sandbox, "hooks")
    size = int.from_bytes(_read_all(CONTROL, 8), "little")
    sandbox.state = _read_all(CONTROL, size)


def _read_all(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = posix.read(fd, size - len(data))
        if not chunk:
            posix._exit(137)  # the launcher has given up or died
        data += chunk
    return data


def await_start(sandbox: Sandbox) -> None:
    """From here on nobody but the reader of exec.fifo has a hand on us."""
    processes.prctl(processes.PR_SET_PDEATHSIG, 0)
    report(sandbox, "started", tuple(sandbox.warnings))
    posix.close(sandbox.report)
    posix.close(CONTROL)
    sandbox.report = -1
    # by name, since a descriptor of the fifo could only be opened again through a /proc that is the image's
    fifo = posix.open("exec.fifo", posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=sandbox.fifo_directory)
    posix.write(fifo, b"0")
    posix.close(fifo)
    posix.close(sandbox.fifo_directory)


def run_hook(
    sandbox: Sandbox, kind: bytes, path: bytes, args: tuple[bytes, ...], env: tuple[bytes, ...], timeout_s: int,
    status: bytes,
) -> None:  # fmt: skip
    """The hook gets the state as its input; what it says is told only when it fails."""
    state = sandbox.state.replace(b'"status":"creating"', b'"status":"%s"' % status)
    stdin, feed = posix.pipe2(posix.O_CLOEXEC)
    said, stdout = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        _become_hook(path, args, env, stdin, stdout)
    posix.close(stdin)
    posix.close(stdout)
    try:  # noqa: SIM105  # contextlib costs more than the whole operation
        posix.write(feed, state)  # far below what a pipe holds
    except BrokenPipeError:
        pass  # it does not want to know
    posix.close(feed)
    pidfd = posix.pidfd_open(pid)
    late = not descriptors.poll({pidfd: descriptors.POLLIN}, timeout_s * 1000 if timeout_s else -1)
    if late:
        posix.kill(pid, _SIGKILL)
    code = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    posix.close(pidfd)
    if late or code:
        why = f"ran longer than {timeout_s} s" if late else f"exit status {code}"
        posix.set_blocking(said, False)
        try:
            text = posix.read(said, 4096).decode("utf-8", "replace").strip()
        except BlockingIOError:
            text = ""  # a process that it left behind holds the pipe
        raise Refused(
            "internal", f"{kind.decode()} hook {path.decode('utf-8', 'replace')}: {why}{f': {text}' if text else ''}"
        )
    posix.close(said)


def _become_hook(path: bytes, args: tuple[bytes, ...], env: tuple[bytes, ...], stdin: int, stdout: int) -> NoReturn:
    try:
        posix.dup2(stdin, 0)
        posix.dup2(stdout, 1)
        posix.dup2(stdout, 2)
        descriptors.close_on_exec_from(CONTROL)
        processes.reset_signals()
        posix.execve(path, args, dict(item.split(b"=", 1) for item in env if b"=" in item))
    except OSError as error:
        posix.write(2, str(error).encode())
    posix._exit(127)


# --- operations: the process ----------------------------------------------------------------


def set_rlimit(sandbox: Sandbox, name: bytes, resource: int, soft: int, hard: int, required: int) -> None:
    try:
        processes.prlimit(resource, soft, hard)
    except OSError as error:
        if error.errno != _EPERM or required:
            error.filename = b"%s=%d:%d" % (name, soft, hard)
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
        descriptors.ioctl(sandbox.console, descriptors.TIOCSCTTY)
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
            try:
                posix.chown(fd, uid, -1)
            except OSError as error:
                if error.errno not in (_EINVAL, _EPERM):  # an id, or a pipe, of outside this user namespace
                    raise


def enter_directory(_: Sandbox, path: bytes, make: int) -> None:
    if make:
        posix.close(directory(paths.AT_FDCWD, path, 0))
    try:
        posix.chdir(path)
    except OSError as error:
        error.filename = path
        raise
    if not posix.getcwd().startswith("/"):  # "(unreachable)": a descriptor has led out of the root
        raise Refused("internal", "the working directory is outside the container")


def set_personality(_: Sandbox, persona: int) -> None:
    processes.personality(persona)


def set_scheduler(
    _: Sandbox, policy: int, flags: int, nice: int, priority: int, times_ns: tuple[int, int, int]
) -> None:
    processes.sched_setattr(policy, flags, nice, priority, times_ns)


def set_io_priority(_: Sandbox, priority: int) -> None:
    processes.ioprio_set(priority)


def no_new_privileges(_: Sandbox) -> None:
    processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)


def load_seccomp(_: Sandbox, program: bytes, flags: int, listener: int) -> None:
    if not listener:
        seccomp.load_seccomp(program, flags)
        return
    fd = seccomp.load_seccomp_listener(program)
    descriptors.send_descriptor(CONTROL, frame("listener"), fd)
    posix.close(fd)


def hand_over_listener(_: Sandbox, program: bytes) -> None:
    fd = seccomp.load_seccomp_listener(program)
    descriptors.send_descriptor(CONTROL, frame("listener"), fd)
    posix.close(fd)


def drop_privileges(
    sandbox: Sandbox, bounding: int, effective: int, permitted: int, inheritable: int, ambient: int
) -> None:
    held = 0  # what this process may pass on: asking for all gives no more than that
    for capability in range(64):
        try:
            held |= processes.prctl(processes.PR_CAPBSET_READ, capability) << capability
        except OSError:
            break  # past the last one that this kernel has
        if not bounding >> capability & 1:
            processes.prctl(processes.PR_CAPBSET_DROP, capability)
    processes.prctl(processes.PR_SET_KEEPCAPS, 1)
    _become_user(sandbox)
    processes.prctl(processes.PR_SET_KEEPCAPS, 0)
    processes.capset(effective & held, permitted & held, inheritable & held)
    raised = ambient & permitted & inheritable & held
    for capability in range(64):
        if raised >> capability & 1:
            processes.prctl(processes.PR_CAP_AMBIENT, processes.PR_CAP_AMBIENT_RAISE, capability)


def _become_user(sandbox: Sandbox) -> None:
    try:
        posix.setgroups(sandbox.groups)
    except PermissionError:
        if not _setgroups_denied():
            raise
    try:
        posix.setgid(sandbox.gid)
        posix.setuid(sandbox.uid)
    except OSError as error:
        if error.errno != _EINVAL:
            raise
        who = f"user {sandbox.uid}:{sandbox.gid}"
        text = f"{who} does not exist in this user namespace: give this user ranges in /etc/subuid and /etc/subgid"
        raise Refused("user", text) from error


def _setgroups_denied() -> bool:
    """Whether this user namespace maps one id alone, which has no other groups to take or to leave."""
    fd = posix.open("/proc/self/setgroups", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 16).startswith(b"deny")
    finally:
        posix.close(fd)


def execute(sandbox: Sandbox, args: tuple[bytes, ...], env: tuple[bytes, ...]) -> None:
    variables = dict(item.split(b"=", 1) for item in env if b"=" in item)
    variables[b"HOME"] = variables.get(b"HOME") or sandbox.home
    program = find_program(args[0], variables.get(b"PATH", b""))
    if sandbox.detached:
        processes.prctl(processes.PR_SET_PDEATHSIG, 0)
    elif sandbox.report >= 0:
        die_with_watcher(sandbox)
    processes.reset_signals()
    if sandbox.report >= 0:
        report(sandbox, "started", tuple(sandbox.warnings))  # believed unless a failure follows
    for position in range(sandbox.extra):
        posix.dup2(_FIRST_EXTRA + position, CONTROL + position)
    descriptors.close_on_exec_from(CONTROL + sandbox.extra)
    try:
        posix.execve(program, args, variables)
    except OSError as error:
        status = 127 if error.errno == _ENOENT else 126
        raise Refused("command", posix.strerror(error.errno or 0).lower(), status) from error


def check_program(_: Sandbox, name: bytes, env: tuple[bytes, ...]) -> None:
    variables = dict(item.split(b"=", 1) for item in env if b"=" in item)
    find_program(name, variables.get(b"PATH", b""))


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
