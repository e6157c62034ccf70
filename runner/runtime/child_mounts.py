"""Rarer things about mounts and clocks. Part of ``child``, loaded when a container asks for them.

``child`` imports this while the host's files are still in sight.
"""

from __future__ import annotations

import posix

from runner.runtime.child_root import Sandbox, directory
from store.linux import mounts, paths, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_SIGKILL = 9
_S_IFMT, _S_IFDIR, _S_IFREG, _S_IFLNK = 0o170000, 0o040000, 0o100000, 0o120000
_CHUNK = 1 << 20


def offset_clocks(offsets: tuple[tuple[bytes, bytes, bytes], ...]) -> None:
    processes.unshare(processes.CLONE_NEWTIME)
    if offsets:
        _write("/proc/self/timens_offsets", b"".join(b"%s %s %s\n" % offset for offset in offsets))


def make_id_map(sandbox: Sandbox, slot: int, uid_map: bytes, gid_map: bytes) -> None:
    read, write = posix.pipe2(posix.O_CLOEXEC)
    pid = processes.clone(processes.CLONE_NEWUSER)
    if pid == 0:
        _stay(read, write)
    try:
        _write(f"/proc/{pid}/uid_map", uid_map)
        _write(f"/proc/{pid}/gid_map", gid_map)
        sandbox.maps[slot] = posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    finally:
        posix.kill(pid, _SIGKILL)
        posix.waitpid(pid, 0)
        posix.close(read)
        posix.close(write)


def _stay(read: int, write: int) -> NoReturn:
    """Be the namespace's only process until killed, or until the process that made us is gone."""
    posix.close(write)
    posix.read(read, 1)
    posix._exit(0)


def map_ids(sandbox: Sandbox, slot: int, recursive: int) -> None:
    namespace = sandbox.maps.pop(slot)
    mounts.map_mount_ids(sandbox.sources[slot], namespace, recursive=bool(recursive))
    posix.close(namespace)


def open_elsewhere(source: bytes, process: int, flags: int) -> int:
    """A detached copy of what a process has mounted on ``source``: only from inside its namespace can one be made."""
    own = _namespace("self")
    root = posix.open("/", paths.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    theirs = _namespace(str(process))
    processes.setns(theirs, processes.CLONE_NEWNS)
    try:
        place = paths.openat2(paths.AT_FDCWD, source, paths.O_PATH | posix.O_DIRECTORY, 0, paths.RESOLVE_NO_SYMLINKS)
        tree = mounts.open_tree(place, b"", flags | paths.AT_EMPTY_PATH)
        posix.close(place)
    finally:
        processes.setns(own, processes.CLONE_NEWNS)
        posix.fchdir(root)  # a namespace's root is not where we were, if that was changed
        posix.chroot(".")
        for fd in (own, root, theirs):
            posix.close(fd)
    return tree


def _namespace(process: str) -> int:
    return posix.open(f"/proc/{process}/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)


def copy_up(sandbox: Sandbox, target: bytes) -> None:
    sandbox.copied = directory(sandbox.root, target)


def finish_copy_up(sandbox: Sandbox, target: bytes) -> None:
    place = directory(sandbox.root, target)
    source = paths.openat2(sandbox.copied, b".", posix.O_RDONLY | posix.O_DIRECTORY)
    copy = paths.openat2(place, b".", posix.O_RDONLY | posix.O_DIRECTORY)
    _copy_tree(source, copy)
    for fd in (source, copy, place, sandbox.copied):
        posix.close(fd)
    sandbox.copied = -1


def _copy_tree(source: int, target: int) -> None:
    """By descriptor and without following links: the tree is the image's, and may be hostile."""
    for name in posix.listdir(source):
        found = posix.stat(name, dir_fd=source, follow_symlinks=False)
        kind = found.st_mode & _S_IFMT
        if kind == _S_IFLNK:
            posix.symlink(posix.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == _S_IFDIR:
            posix.mkdir(name, dir_fd=target)
            inner = _open(source, name, posix.O_RDONLY | posix.O_DIRECTORY)
            made = _open(target, name, posix.O_RDONLY | posix.O_DIRECTORY)
            _copy_tree(inner, made)
            posix.close(inner)
            posix.close(made)
        elif kind == _S_IFREG:
            _copy_file(source, target, name)
        else:
            posix.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        posix.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        if kind != _S_IFLNK:
            posix.chmod(name, found.st_mode & 0o7777, dir_fd=target)  # after chown, which takes setuid away
        posix.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    read = _open(source, name, posix.O_RDONLY | posix.O_NONBLOCK)
    write = _open(target, name, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL)
    while chunk := posix.read(read, _CHUNK):
        while chunk:
            chunk = chunk[posix.write(write, chunk) :]
    posix.close(read)
    posix.close(write)


def _open(parent: int, name: str, flags: int) -> int:
    return posix.open(name, flags | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600, dir_fd=parent)


def _write(path: str, data: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, data)
    except OSError as error:
        error.filename = path
        raise
    finally:
        posix.close(fd)
