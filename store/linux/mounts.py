"""Mounts: mount(2), and the newer calls that work on descriptors."""

from __future__ import annotations

from store.linux.foreign import Bytes, Int, UnsignedLong, bind, call, failure, u64
from store.linux.paths import AT_EMPTY_PATH, AT_RECURSIVE

# mount(2) flags
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

# umount2(2) flags
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# open_tree(2), move_mount(2), mount_setattr(2)
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME_MASK = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
MOUNT_ATTR_IDMAP = 0x00100000

_mount = bind("mount", Bytes, Bytes, Bytes, UnsignedLong, Bytes)
_umount2 = bind("umount2", Bytes, Int)


def mount(source: bytes | None, target: bytes, fstype: bytes | None, flags: int = 0, data: bytes | None = None) -> None:
    """mount(2). ``data`` and the names together stay below one page (4096 bytes)."""
    if _mount(source, target, fstype, flags, data) < 0:
        raise failure("mount", target)


def umount2(target: bytes, flags: int = 0) -> None:
    """umount2(2). EINVAL means: not a mount point."""
    if _umount2(target, flags) < 0:
        raise failure("umount2", target)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)."""
    call("pivot_root", new_root, put_old, path=new_root)


def open_tree(directory: int, path: bytes, flags: int) -> int:
    """A descriptor of a mount at ``path``; with OPEN_TREE_CLONE a detached copy (Linux 5.2)."""
    return call("open_tree", directory, path, flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(tree: int, target: int) -> None:
    """Attach the detached mount ``tree`` on what the descriptor ``target`` refers to."""
    call("move_mount", tree, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(mount_fd: int, *, set_: int, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """Change attributes of a mount in one step, keeping those not named (Linux 5.12)."""
    _set_attributes(mount_fd, (set_, clear, propagation, 0), recursive=recursive)


def map_mount_ids(mount_fd: int, user_namespace: int, *, recursive: bool) -> None:
    """Show a detached mount's owners as ``user_namespace`` maps them (Linux 5.12)."""
    _set_attributes(mount_fd, (MOUNT_ATTR_IDMAP, 0, 0, user_namespace), recursive=recursive)


def _set_attributes(mount_fd: int, attributes: tuple[int, int, int, int], *, recursive: bool) -> None:
    structure = b"".join(u64(value) for value in attributes)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    call("mount_setattr", mount_fd, b"", flags, structure, len(structure))
