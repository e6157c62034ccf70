"""The process that becomes a container, and the one that watches over it.

``launch`` starts a bare interpreter (``python -I -S``) on ``main``. It reads its orders from
a socket: operations of ``plan``, marshalled. It clones; the copy performs the operations
and ends in exec as pid 1 of the container; the original, the *watcher*, tells the launcher
what happens and kills the container when the launcher is gone.

Nothing but ``sys``, ``posix``, ``marshal`` and ``store.kernel`` is imported: start-up is most
of what a start costs, and there is less to go wrong between clone and exec.

Events on the socket, each a marshalled tuple behind its length in four bytes:

    ("pid", pid)                          cloned; waits for the launcher's word ("g") at await_parent
    ("console",)                          with the pty's master as SCM_RIGHTS
    ("started", warnings)                 exec has happened
    ("failed", kind, stage, syscall, errno, text)
    ("exited", wait status)

Every path of the container is resolved inside its root by openat2(RESOLVE_IN_ROOT) and used
by descriptor: a root filesystem full of links to the host reaches nothing of the host.
"""

from __future__ import annotations

import marshal
import posix
import sys

from store import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

CONTROL = 3
"""The socket to the launcher."""
LEASE = 4
"""Held open only: its lock says that the container lives."""
_FIRST_FOREIGN = 5

_EPERM, _ENOENT, _EACCES, _EEXIST, _ENOTDIR, _EISDIR = 1, 2, 13, 17, 20, 21
_SIGKILL = 9
_S_IFMT, _S_IFDIR, _S_IFCHR, _S_IFIFO, _S_IFREG = 0o170000, 0o040000, 0o020000, 0o010000, 0o100000
_X_OK = 1
_LARGEST_ACCOUNT_FILE = 16 << 20
_LARGEST_ID = 2**31 - 1
_IN_ROOT = kernel.RESOLVE_IN_ROOT
_NO_LINKS = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_SYMLINKS


class Refused(Exception):  # a fact told to the launcher, not an error of ours
    """The container cannot start for a reason that is no system call: ``kind`` is user, command or internal."""

    def __init__(self, kind: str, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.status = status


class Sandbox:
    """What the operations have found out so far."""

    __slots__ = ("console", "gid", "groups", "home", "report", "root", "sources", "uid", "warnings")

    def __init__(self, report: int) -> None:
        self.report = report
        self.root = -1
        self.sources: dict[int, int] = {}
        self.console = -1
        self.uid = 0
        self.gid = 0
        self.groups: tuple[int, ...] = ()
        self.home = b"/"
        self.warnings: list[str] = []


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


def frame(*event: Any) -> bytes:
    """One event as it stands on the socket."""
    body = marshal.dumps(event)
    return len(body).to_bytes(4, "little") + body


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


# --- paths inside the root ------------------------------------------------------------------


def _kind(fd: int) -> int:
    return posix.fstat(fd).st_mode & _S_IFMT


def _directory(root: int, path: bytes, resolve: int = _IN_ROOT) -> int:
    """An O_PATH descriptor of a directory of the root, made with its parents if absent."""
    flags = kernel.O_PATH | posix.O_DIRECTORY
    try:
        return kernel.openat2(root, path, flags, 0, resolve)
    except OSError as error:
        if error.errno != _ENOENT:
            raise
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    parent = _directory(root, above or b"/", resolve)
    try:
        posix.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        pass  # a dangling link, which the second try reports, or somebody else's mkdir
    finally:
        posix.close(parent)
    return kernel.openat2(root, path, flags, 0, resolve)


def _parent(root: int, path: bytes) -> tuple[int, bytes]:
    """The directory that holds ``path``, made if absent, and the last name."""
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise Refused("internal", f"{path!r} does not name a file")
    return _directory(root, above or b"/"), name


def _file(root: int, path: bytes) -> int:
    """An O_PATH descriptor of something at ``path``, an empty file if there was nothing."""
    try:
        return kernel.openat2(root, path, kernel.O_PATH, 0, _IN_ROOT)
    except OSError as error:
        if error.errno != _ENOENT:
            raise
    parent, name = _parent(root, path)
    try:
        posix.close(kernel.openat2(parent, name, posix.O_CREAT | posix.O_WRONLY | posix.O_NOFOLLOW, 0o644))
        return kernel.openat2(parent, name, kernel.O_PATH | posix.O_NOFOLLOW)
    finally:
        posix.close(parent)


def _existing(root: int, path: bytes) -> int | None:
    """An O_PATH descriptor, or None where this system has no such path."""
    try:
        return kernel.openat2(root, path, kernel.O_PATH, 0, _IN_ROOT)
    except OSError as error:
        if error.errno in (_ENOENT, _ENOTDIR):
            return None
        raise


# --- operations: namespaces and root --------------------------------------------------------


def join_keyring(_: Sandbox, name: bytes) -> None:
    try:  # noqa: SIM105  # contextlib costs more than the whole operation
        kernel.join_session_keyring(name)
    except OSError:
        pass  # no keyrings in this kernel, a quota, or an outer filter: the caller's keys stay out of reach by uid


def join_namespace(_: Sandbox, path: bytes, flag: int) -> None:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        kernel.setns(fd, flag)
    finally:
        posix.close(fd)


def isolate_mounts(_: Sandbox, propagation: int) -> None:
    kernel.mount(None, b"/", None, kernel.MS_REC | propagation)


def mount_overlay(sandbox: Sandbox, base: bytes, options: bytes, target: bytes) -> None:
    posix.chdir(base)
    kernel.mount(b"overlay", target, b"overlay", 0, options)
    sandbox.root = kernel.openat2(kernel.AT_FDCWD, target, kernel.O_PATH | posix.O_DIRECTORY)


def bind_root(sandbox: Sandbox, path: bytes) -> None:
    place = kernel.openat2(kernel.AT_FDCWD, path, kernel.O_PATH | posix.O_DIRECTORY)
    flags = kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE | kernel.AT_EMPTY_PATH
    tree = kernel.open_tree(place, b"", flags)
    kernel.move_mount(tree, place)
    posix.close(place)
    sandbox.root = tree


def open_source(sandbox: Sandbox, slot: int, source: bytes, recursive: int) -> None:
    flags = kernel.OPEN_TREE_CLONE | (kernel.AT_RECURSIVE if recursive else 0)
    sandbox.sources[slot] = kernel.open_tree(kernel.AT_FDCWD, source, flags)


def attach_source(
    sandbox: Sandbox, slot: int, target: bytes, attributes: int, recursive: int, propagation: int
) -> None:
    tree = sandbox.sources.pop(slot)
    place = (_directory if _kind(tree) == _S_IFDIR else _file)(sandbox.root, target)
    if attributes or propagation:
        clear = kernel.MOUNT_ATTR_ATIME_MASK if attributes & kernel.MOUNT_ATTR_ATIME_MASK else 0
        kernel.mount_setattr(tree, set_=attributes, clear=clear, propagation=propagation, recursive=bool(recursive))
    kernel.move_mount(tree, place)
    posix.close(place)
    posix.close(tree)


def mount_filesystem(
    sandbox: Sandbox, fstype: bytes, source: bytes, target: bytes, flags: int, data: bytes, follow: int
) -> None:
    place = _directory(sandbox.root, target, _IN_ROOT if follow else _NO_LINKS)
    try:
        posix.fchdir(place)  # "." is the one name of the place that cannot be a link
        kernel.mount(source, b".", fstype, flags, data or None)
    except OSError as error:
        error.filename = target
        raise
    finally:
        posix.close(place)


def make_device(
    sandbox: Sandbox, path: bytes, kind: int, major: int, minor: int, mode: int, uid: int, gid: int
) -> None:
    parent, name = _parent(sandbox.root, path)
    device = posix.makedev(major, minor)
    try:
        posix.mknod(name, kind | mode, device, dir_fd=parent)
        if uid or gid:
            posix.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        found = posix.stat(name, dir_fd=parent, follow_symlinks=False)
        if found.st_mode & _S_IFMT != kind or found.st_rdev != device:
            raise
    finally:
        posix.close(parent)


def bind_device(sandbox: Sandbox, path: bytes) -> None:
    tree = kernel.open_tree(kernel.AT_FDCWD, path, kernel.OPEN_TREE_CLONE)
    place = _file(sandbox.root, path)
    kernel.move_mount(tree, place)
    posix.close(place)
    posix.close(tree)


def make_link(sandbox: Sandbox, target: bytes, path: bytes) -> None:
    parent, name = _parent(sandbox.root, path)
    try:
        posix.symlink(target, name, dir_fd=parent)
    except FileExistsError:
        pass  # the image or a mount has brought its own
    finally:
        posix.close(parent)


def make_console(sandbox: Sandbox, rows: int, columns: int) -> None:
    access = posix.O_RDWR | posix.O_NOCTTY
    master = kernel.openat2(sandbox.root, b"dev/pts/ptmx", access, 0, _IN_ROOT)
    kernel.ioctl_buffer(master, kernel.TIOCSPTLCK, bytes(4))
    number = int.from_bytes(kernel.ioctl_buffer(master, kernel.TIOCGPTN, bytes(4)), sys.byteorder)
    sandbox.console = kernel.ioctl(master, kernel.TIOCGPTPEER, access | posix.O_CLOEXEC)
    if rows and columns:
        size = rows.to_bytes(2, sys.byteorder) + columns.to_bytes(2, sys.byteorder) + bytes(4)
        kernel.ioctl_buffer(master, kernel.TIOCSWINSZ, size)
    pts = kernel.openat2(sandbox.root, b"dev/pts/%d" % number, kernel.O_PATH, 0, _NO_LINKS)
    tree = kernel.open_tree(pts, b"", kernel.OPEN_TREE_CLONE | kernel.AT_EMPTY_PATH)
    place = _file(sandbox.root, b"/dev/console")
    kernel.move_mount(tree, place)
    kernel.send_descriptor(CONTROL, frame("console"), master)
    for fd in (pts, tree, place, master):
        posix.close(fd)


def set_hostname(_: Sandbox, name: bytes) -> None:
    kernel.sethostname(name)


def set_domainname(_: Sandbox, name: bytes) -> None:
    kernel.setdomainname(name)


def write_sysctl(sandbox: Sandbox, path: bytes, value: bytes, required: int) -> None:
    try:
        fd = kernel.openat2(sandbox.root, path, posix.O_WRONLY, 0, _NO_LINKS)
    except OSError:
        if required:
            raise
        return
    try:
        posix.write(fd, value)
    except OSError as error:
        error.filename = path
        raise
    finally:
        posix.close(fd)


def make_readonly(sandbox: Sandbox, path: bytes) -> None:
    place = _existing(sandbox.root, path)
    if place is None:
        return
    tree = kernel.open_tree(place, b"", kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE | kernel.AT_EMPTY_PATH)
    kernel.mount_setattr(tree, set_=kernel.MOUNT_ATTR_RDONLY, recursive=True)
    kernel.move_mount(tree, place)
    posix.close(tree)
    posix.close(place)


def remount_readonly(sandbox: Sandbox, path: bytes) -> None:
    place = _directory(sandbox.root, path)
    kernel.mount_setattr(place, set_=kernel.MOUNT_ATTR_RDONLY, recursive=True)
    posix.close(place)


def mask_path(sandbox: Sandbox, path: bytes) -> None:
    place = _existing(sandbox.root, path)
    if place is None:
        return
    if _kind(place) == _S_IFDIR:
        posix.fchdir(place)
        kernel.mount(b"tmpfs", b".", b"tmpfs", kernel.MS_RDONLY, b"nr_blocks=1,nr_inodes=1")
    else:
        tree = kernel.open_tree(_null_device(sandbox.root), b"", kernel.OPEN_TREE_CLONE | kernel.AT_EMPTY_PATH)
        kernel.move_mount(tree, place)
        posix.close(tree)
    posix.close(place)


def _null_device(root: int) -> int:
    """The container's /dev/null, and nothing that an image has put in its place."""
    fd = kernel.openat2(root, b"dev/null", kernel.O_PATH | posix.O_NOFOLLOW, 0, _IN_ROOT)
    found = posix.fstat(fd)
    if found.st_mode & _S_IFMT != _S_IFCHR or found.st_rdev != posix.makedev(1, 3):
        raise Refused("internal", "/dev/null of the container is not the null device: cannot mask paths with it")
    return fd


def readonly_root(sandbox: Sandbox) -> None:
    kernel.mount_setattr(sandbox.root, set_=kernel.MOUNT_ATTR_RDONLY)


def pivot_root(sandbox: Sandbox) -> None:
    posix.fchdir(sandbox.root)
    kernel.pivot_root(b".", b".")  # the old root is stacked on the new one, and taken off again
    kernel.umount2(b".", kernel.MNT_DETACH)
    posix.chdir("/")


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
    sandbox.home = next((home for _, found, _, home in users(_account_file("/etc/passwd")) if found == uid), b"/")


def find_user(sandbox: Sandbox, text: bytes, groups: tuple[bytes, ...]) -> None:
    passwd, group = _account_file("/etc/passwd"), _account_file("/etc/group")
    sandbox.uid, sandbox.gid, sandbox.groups, sandbox.home = resolve_user(text, groups, passwd, group)


def _account_file(path: str) -> bytes:
    """The file's content, or nothing. By now / is the container's, so that any link stays inside.

    Only a regular file is read: a fifo would make us wait for ever.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:
        return b""
    try:
        if _kind(fd) != _S_IFREG:
            return b""
        chunks = []
        size = 0
        while size < _LARGEST_ACCOUNT_FILE and (chunk := posix.read(fd, 1 << 16)):
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks)
    except OSError:
        return b""
    finally:
        posix.close(fd)


def users(passwd: bytes) -> list[tuple[bytes, int, int, bytes]]:
    """Name, uid, gid and home of each well-formed line."""
    found = []
    for line in passwd.splitlines():
        fields = line.strip().split(b":")
        if len(fields) >= 4 and fields[2].isdigit() and fields[3].isdigit():
            found.append((fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else b""))
    return found


def group_members(group: bytes) -> list[tuple[bytes, int, list[bytes]]]:
    """Name, gid and members of each well-formed line."""
    found = []
    for line in group.splitlines():
        fields = line.strip().split(b":")
        if len(fields) >= 3 and fields[2].isdigit():
            found.append((fields[0], int(fields[2]), fields[3].split(b",") if len(fields) > 3 else []))
    return found


def resolve_user(
    text: bytes, extra: tuple[bytes, ...], passwd: bytes, group: bytes
) -> tuple[int, int, tuple[int, ...], bytes]:
    """uid, gid, supplementary groups and home for ``user[:group]``, as docker finds them.

    A number is always an id and needs no entry. Without a group the user's own groups
    count, with one they do not. The main group is a supplementary one as well.
    """
    user_text, _, group_text = text.partition(b":")
    uid, gid, home, name = _user(user_text, passwd)
    supplementary: list[int] = []
    if group_text:
        gid = _group(group_text, group)
    elif name:
        supplementary = [number for _, number, members in group_members(group) if name in members]
    supplementary += [_group(item, group) for item in extra]
    return uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home or b"/"


def _user(text: bytes, passwd: bytes) -> tuple[int, int, bytes, bytes]:
    wanted = _id(text or b"0")
    for name, uid, gid, home in users(passwd):
        if (uid == wanted) if wanted is not None else (name == text):
            return uid, gid, home, name
    if wanted is None:
        shown = text.decode("utf-8", "replace")
        raise Refused("user", f"unable to find user {shown}: no matching entries in passwd file")
    return wanted, 0, b"/", b""


def _group(text: bytes, group: bytes) -> int:
    wanted = _id(text)
    if wanted is not None:
        return wanted
    for name, gid, _ in group_members(group):
        if name == text:
            return gid
    shown = text.decode("utf-8", "replace")
    raise Refused("user", f"unable to find group {shown}: no matching entries in group file")


def _id(text: bytes) -> int | None:
    """A number in range, or None for a name."""
    if not text.isdigit():
        return None
    number = int(text[:20])
    if number > _LARGEST_ID:
        raise Refused("user", f"uids and gids must be in range 0-{_LARGEST_ID}")
    return number


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
        if terminal or _kind(fd) == _S_IFIFO:
            posix.chown(fd, uid, -1)


def enter_directory(_: Sandbox, path: bytes) -> None:
    posix.close(_directory(kernel.AT_FDCWD, path, 0))
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
    for directory in search.split(b":"):
        candidate = (directory or b".") + b"/" + name
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
