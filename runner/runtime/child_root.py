"""The root of a container while it is made: paths in it, and operations on it. Part of ``child``.

Every path of the container is resolved inside its root by openat2(RESOLVE_IN_ROOT) and used
by descriptor: a root filesystem full of links to the host reaches nothing of the host.
"""

from __future__ import annotations

import marshal
import posix
import sys

from store.linux import descriptors, mounts, paths, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONTROL = 3
"""The socket to the launcher."""

_ENOENT, _EBUSY, _ENOTDIR = 2, 16, 20
_S_IFMT, _S_IFDIR, _S_IFCHR = 0o170000, 0o040000, 0o020000
_IN_ROOT = paths.RESOLVE_IN_ROOT
_NO_LINKS = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_SYMLINKS


class Refused(Exception):  # a fact told to the launcher, not an error of ours
    """The container cannot start for a reason that is no system call: ``kind`` is user, command or internal."""

    def __init__(self, kind: str, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.status = status


class Sandbox:
    """What the operations have found out so far."""

    __slots__ = (
        "console", "container", "copied", "detached", "extra", "fifo_directory", "gid", "groups", "home", "maps", "report", "root",
        "sources", "state", "uid", "warnings",
    )  # fmt: skip

    def __init__(self, report: int, extra: int = 0, detached: int = 0) -> None:
        self.report = report
        self.extra = extra
        self.detached = detached
        self.container = -1
        self.fifo_directory = -1
        self.state = b""
        self.copied = -1
        self.maps: dict[int, int] = {}
        self.root = -1
        self.sources: dict[int, int] = {}
        self.console = -1
        self.uid = 0
        self.gid = 0
        self.groups: tuple[int, ...] = ()
        self.home = b"/"
        self.warnings: list[str] = []


def frame(*event: Any) -> bytes:
    """One event as it stands on the socket."""
    body = marshal.dumps(event)
    return len(body).to_bytes(4, "little") + body


# --- paths inside the root ------------------------------------------------------------------


def kind_of(fd: int) -> int:
    return posix.fstat(fd).st_mode & _S_IFMT


def directory(root: int, path: bytes, resolve: int = _IN_ROOT) -> int:
    """An O_PATH descriptor of a directory of the root, made with its parents if absent."""
    flags = paths.O_PATH | posix.O_DIRECTORY
    try:
        return paths.openat2(root, path, flags, 0, resolve)
    except OSError as error:
        if error.errno != _ENOENT:
            raise
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    parent = directory(root, above or b"/", resolve)
    try:
        posix.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        pass  # a dangling link, which the second try reports, or somebody else's mkdir
    finally:
        posix.close(parent)
    return paths.openat2(root, path, flags, 0, resolve)


def _parent(root: int, path: bytes) -> tuple[int, bytes]:
    """The directory that holds ``path``, made if absent, and the last name."""
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise Refused("internal", f"{path!r} does not name a file")
    return directory(root, above or b"/"), name


def _file(root: int, path: bytes) -> int:
    """An O_PATH descriptor of something at ``path``, an empty file if there was nothing."""
    try:
        return paths.openat2(root, path, paths.O_PATH, 0, _IN_ROOT)
    except OSError as error:
        if error.errno != _ENOENT:
            raise
    parent, name = _parent(root, path)
    try:
        posix.close(paths.openat2(parent, name, posix.O_CREAT | posix.O_WRONLY | posix.O_NOFOLLOW, 0o644))
        return paths.openat2(parent, name, paths.O_PATH | posix.O_NOFOLLOW)
    finally:
        posix.close(parent)


def _existing(root: int, path: bytes) -> int | None:
    """An O_PATH descriptor, or None where this system has no such path."""
    try:
        return paths.openat2(root, path, paths.O_PATH, 0, _IN_ROOT)
    except OSError as error:
        if error.errno in (_ENOENT, _ENOTDIR):
            return None
        raise


# --- operations: namespaces and root --------------------------------------------------------


def join_keyring(_: Sandbox, name: bytes) -> None:
    try:  # noqa: SIM105  # contextlib costs more than the whole operation
        processes.join_session_keyring(name)
    except OSError:
        pass  # no keyrings in this kernel, a quota, or an outer filter: the caller's keys stay out of reach by uid


def join_namespace(_: Sandbox, path: bytes, flag: int) -> None:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        processes.setns(fd, flag)
    finally:
        posix.close(fd)


def isolate_mounts(_: Sandbox, propagation: int) -> None:
    mounts.mount(None, b"/", None, mounts.MS_REC | propagation)


def mount_overlay(sandbox: Sandbox, base: bytes, options: bytes, target: bytes) -> None:
    posix.chdir(base)
    mounts.mount(b"overlay", target, b"overlay", 0, options)
    sandbox.root = paths.openat2(paths.AT_FDCWD, target, paths.O_PATH | posix.O_DIRECTORY)


def bind_root(sandbox: Sandbox, path: bytes) -> None:
    place = paths.openat2(paths.AT_FDCWD, path, paths.O_PATH | posix.O_DIRECTORY)
    flags = mounts.OPEN_TREE_CLONE | paths.AT_RECURSIVE | paths.AT_EMPTY_PATH
    tree = mounts.open_tree(place, b"", flags)
    mounts.move_mount(tree, place)
    posix.close(place)
    sandbox.root = tree


def open_source(sandbox: Sandbox, slot: int, source: bytes, recursive: int, subdirectory: bytes, process: int) -> None:
    flags = mounts.OPEN_TREE_CLONE | (paths.AT_RECURSIVE if recursive else 0)
    if process:
        from runner.runtime import child_mounts

        sandbox.sources[slot] = child_mounts.open_elsewhere(source, process, flags)
        return
    if not subdirectory:
        sandbox.sources[slot] = mounts.open_tree(paths.AT_FDCWD, source, flags)
        return
    whole = posix.open(source, paths.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:  # another container may be putting a link there at this moment
        part = paths.openat2(whole, subdirectory, paths.O_PATH, 0, _IN_ROOT)
    except OSError as error:
        error.filename = subdirectory
        raise
    finally:
        posix.close(whole)
    sandbox.sources[slot] = mounts.open_tree(part, b"", flags | paths.AT_EMPTY_PATH)
    posix.close(part)


def attach_source(
    sandbox: Sandbox, slot: int, target: bytes, attributes: int, cleared: int, recursive: int, propagation: int
) -> None:
    tree = sandbox.sources.pop(slot)
    place = (directory if kind_of(tree) == _S_IFDIR else _file)(sandbox.root, target)
    if attributes or cleared or propagation:
        clear = cleared | (mounts.MOUNT_ATTR_ATIME_MASK if attributes & mounts.MOUNT_ATTR_ATIME_MASK else 0)
        mounts.mount_setattr(tree, set_=attributes, clear=clear, propagation=propagation, recursive=bool(recursive))
    mounts.move_mount(tree, place)
    posix.close(place)
    posix.close(tree)


def mount_filesystem(
    sandbox: Sandbox, fstype: bytes, source: bytes, target: bytes, flags: int, data: bytes, follow: int
) -> None:
    place = directory(sandbox.root, target, _IN_ROOT if follow else _NO_LINKS)
    try:
        posix.fchdir(place)  # "." is the one name of the place that cannot be a link
        mounts.mount(source, b".", fstype, flags, data or None)
    except OSError as error:
        if fstype != b"cgroup2" or error.errno != _EBUSY:
            error.filename = target
            raise
        # the host's /sys is shared, and has this very tree there: our group is its root
        mounts.mount_setattr(place, set_=flags & mounts.MS_RDONLY)
    finally:
        posix.close(place)


def mount_own_group(sandbox: Sandbox, target: bytes, flags: int, data: bytes) -> None:
    """From a process in a namespace of the group, which nobody stays in: the group is the mount's root."""
    pid = posix.fork()
    if not pid:
        try:
            processes.unshare(processes.CLONE_NEWCGROUP)
            mount_filesystem(sandbox, b"cgroup", b"cgroup", target, flags, data, 1)
            posix._exit(0)
        except OSError as error:
            posix._exit(error.errno or 255)
        finally:
            posix._exit(255)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, "mount", target)


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
    tree = mounts.open_tree(paths.AT_FDCWD, path, mounts.OPEN_TREE_CLONE)
    place = _file(sandbox.root, path)
    mounts.move_mount(tree, place)
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


def make_console(sandbox: Sandbox, rows: int, columns: int, mount: int) -> None:
    access = posix.O_RDWR | posix.O_NOCTTY
    master = paths.openat2(sandbox.root, b"dev/pts/ptmx", access, 0, _IN_ROOT)
    if posix.fstat(master).st_rdev != posix.makedev(5, 2):
        raise Refused("internal", "/dev/pts/ptmx of the container is no terminal multiplexer")
    descriptors.ioctl_buffer(master, descriptors.TIOCSPTLCK, bytes(4))
    number = int.from_bytes(descriptors.ioctl_buffer(master, descriptors.TIOCGPTN, bytes(4)), sys.byteorder)
    sandbox.console = descriptors.ioctl(master, descriptors.TIOCGPTPEER, access | posix.O_CLOEXEC)
    if rows and columns:
        size = rows.to_bytes(2, sys.byteorder) + columns.to_bytes(2, sys.byteorder) + bytes(4)
        descriptors.ioctl_buffer(master, descriptors.TIOCSWINSZ, size)
    if mount:
        _mount_console(sandbox, number)
    descriptors.send_descriptor(CONTROL, frame("console"), master)
    posix.close(master)


def _mount_console(sandbox: Sandbox, number: int) -> None:
    """The container's end as /dev/console, for pid 1."""
    pts = paths.openat2(sandbox.root, b"dev/pts/%d" % number, paths.O_PATH, 0, _NO_LINKS)
    tree = mounts.open_tree(pts, b"", mounts.OPEN_TREE_CLONE | paths.AT_EMPTY_PATH)
    place = _file(sandbox.root, b"/dev/console")
    mounts.move_mount(tree, place)
    for fd in (pts, tree, place):
        posix.close(fd)


def set_hostname(_: Sandbox, name: bytes) -> None:
    processes.sethostname(name)


def set_domainname(_: Sandbox, name: bytes) -> None:
    processes.setdomainname(name)


def write_sysctl(sandbox: Sandbox, path: bytes, value: bytes, required: int) -> None:
    try:
        fd = paths.openat2(sandbox.root, path, posix.O_WRONLY, 0, _NO_LINKS)
    except OSError:
        if required:
            raise
        return
    try:
        posix.write(fd, value)
    except OSError as error:
        if required:
            error.filename = path
            raise
    finally:
        posix.close(fd)


def make_readonly(sandbox: Sandbox, path: bytes) -> None:
    place = _existing(sandbox.root, path)
    if place is None:
        return
    tree = mounts.open_tree(place, b"", mounts.OPEN_TREE_CLONE | paths.AT_RECURSIVE | paths.AT_EMPTY_PATH)
    mounts.mount_setattr(tree, set_=mounts.MOUNT_ATTR_RDONLY, recursive=True)
    mounts.move_mount(tree, place)
    posix.close(tree)
    posix.close(place)


def remount_readonly(sandbox: Sandbox, path: bytes) -> None:
    place = directory(sandbox.root, path)
    mounts.mount_setattr(place, set_=mounts.MOUNT_ATTR_RDONLY, recursive=True)
    posix.close(place)


def mask_path(sandbox: Sandbox, path: bytes) -> None:
    place = _existing(sandbox.root, path)
    if place is None:
        return
    if kind_of(place) == _S_IFDIR:
        posix.fchdir(place)
        mounts.mount(b"tmpfs", b".", b"tmpfs", mounts.MS_RDONLY, b"nr_blocks=1,nr_inodes=1")
    else:
        tree = mounts.open_tree(_null_device(sandbox.root), b"", mounts.OPEN_TREE_CLONE | paths.AT_EMPTY_PATH)
        mounts.move_mount(tree, place)
        posix.close(tree)
    posix.close(place)


def _null_device(root: int) -> int:
    """The container's /dev/null, and nothing that an image has put in its place."""
    fd = paths.openat2(root, b"dev/null", paths.O_PATH | posix.O_NOFOLLOW, 0, _IN_ROOT)
    found = posix.fstat(fd)
    if found.st_mode & _S_IFMT != _S_IFCHR or found.st_rdev != posix.makedev(1, 3):
        raise Refused("internal", "/dev/null of the container is not the null device: cannot mask paths with it")
    return fd


def readonly_root(sandbox: Sandbox) -> None:
    mounts.mount_setattr(sandbox.root, set_=mounts.MOUNT_ATTR_RDONLY)


def pivot_root(sandbox: Sandbox) -> None:
    posix.fchdir(sandbox.root)
    mounts.pivot_root(b".", b".")  # the old root is stacked on the new one, and taken off again
    mounts.umount2(b".", mounts.MNT_DETACH)
    posix.chdir("/")


def move_root(sandbox: Sandbox) -> None:
    posix.fchdir(sandbox.root)
    mounts.mount(b".", b"/", None, mounts.MS_MOVE)
    posix.chroot(".")
    posix.chdir("/")


# --- rarer ones, whose code is loaded when it is needed -----------------------------------------


def offset_clocks(_: Sandbox, offsets: tuple[tuple[bytes, bytes, bytes], ...]) -> None:
    from runner.runtime import child_mounts

    child_mounts.offset_clocks(offsets)


def make_id_map(sandbox: Sandbox, slot: int, uid_map: bytes, gid_map: bytes) -> None:
    from runner.runtime import child_mounts

    child_mounts.make_id_map(sandbox, slot, uid_map, gid_map)


def map_ids(sandbox: Sandbox, slot: int, recursive: int) -> None:
    from runner.runtime import child_mounts

    child_mounts.map_ids(sandbox, slot, recursive)


def copy_up(sandbox: Sandbox, target: bytes) -> None:
    from runner.runtime import child_mounts

    child_mounts.copy_up(sandbox, target)


def finish_copy_up(sandbox: Sandbox, target: bytes) -> None:
    from runner.runtime import child_mounts

    child_mounts.finish_copy_up(sandbox, target)
