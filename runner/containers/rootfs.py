"""A container's root filesystem as seen from outside, whether it runs or not.

A container that runs has its tree mounted, and writing below that mount would confuse the
kernel; so it is reached through its first process. One that does not run is kept from being
started meanwhile by the lock that its monitor would hold.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from image.errors import Conflict, InvalidInput, KernelError
from runner.containers.records import Record, Records
from store.directories import Directories, Directory
from store.layers import Workspace, in_private_mounts, mounted
from store.linux import descriptors, mounts, paths, processes

if TYPE_CHECKING:
    from runner.runtime.spec import Mount

STUBS: Final = (b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")
"""What every container mounts over. Where an image lacks one, an empty stub is made in the container's layer."""

_PATIENCE_S: Final = 30.0
_OPEN_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def held(records: Records, word: str) -> Iterator[Record]:
    """The container as it is now; one that does not run can't be started or removed inside the block.

    Raises ContainerNotFound; Conflict when it neither runs nor stands still for half a minute.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not (record := records.get(word)).state.is_running:
        try:
            lock = records.watch(record.id)
        except FileNotFoundError:
            continue  # it is being removed, which the next look tells
        except Conflict:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        try:
            yield records.get(record.id)
        finally:
            os.close(lock)
        return
    yield record


def container_owner(root: int, record: Record) -> tuple[int, int] | None:
    """uid and gid of the user that the container runs as; None where it names none. Raises InvalidInput."""
    from runner.runtime.accounts import account_in
    from runner.runtime.child_root import Refused

    user = record.made.options.user or record.made.config.user
    if not user:
        return None
    try:
        return account_in(root, user)[:2]
    except Refused as error:
        raise InvalidInput(error.text) from error


@contextmanager
def whole_tree(records: Records, record: Record) -> Iterator[int]:
    """The root as the container's processes see it, with volumes, to read and to write.

    ``record`` is ``held``. Raises Conflict when the container has just ended, KernelError,
    InvalidInput for what can't be mounted while it does not run.
    """
    if record.state.is_running:
        path = f"/proc/{record.state.pid}/root"
        with _descriptor(_of_process(record, lambda: os.open(path, _OPEN_ROOT))) as root:
            yield root
        return
    from runner.containers.begin import mount_points

    layers = records.store.layers
    workspace = Workspace(record.made.directory, layers.base / record.made.directory)
    with ExitStack() as stack:
        points = tuple(stack.enter_context(mount_points(records, record)).values())
        overlay = layers.overlay(record.made.layers, workspace)
        yield stack.enter_context(mounted(overlay, lambda root: _furnish(root, record, points)))


@contextmanager
def own_tree(records: Records, record: Record) -> Iterator[int]:
    """The container's own files: what is mounted in it, volumes too, is not there. For reading. See ``whole_tree``."""
    if not record.state.is_running:
        layers = records.store.layers
        with mounted(layers.overlay((record.made.directory, *record.made.layers))) as root:
            yield root
        return
    with _descriptor(_of_process(record, lambda: in_private_mounts(lambda: _root_mount(record.state.pid)))) as root:
        yield root


def _root_mount(pid: int) -> int:
    """A copy of the root mount alone, in no namespace. Only in a thread that ends afterwards."""
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        processes.setns(namespace, processes.CLONE_NEWNS)
    finally:
        os.close(namespace)
    tree = mounts.open_tree(paths.AT_FDCWD, b"/", mounts.OPEN_TREE_CLONE)
    try:
        return os.open(".", _OPEN_ROOT, dir_fd=tree)
    finally:
        os.close(tree)


def _of_process(record: Record, take: Callable[[], int]) -> int:
    """A descriptor that ``take`` opens by the pid of the first process, which was that process all the time.

    Raises Conflict when it has ended, KernelError.
    """
    ended = Conflict(f"container {record.name} has just ended: try again")
    try:
        process = os.pidfd_open(record.state.pid)
    except ProcessLookupError:
        raise ended from None
    try:
        root = take()
        if _has_ended(process):
            os.close(root)
            raise ended
    except OSError as error:
        if _has_ended(process):
            raise ended from None
        where = f"/proc/{record.state.pid}/root"
        raise KernelError(f"look into container {record.name}", "open", error.errno or 0, where) from error
    else:
        return root
    finally:
        os.close(process)


def _has_ended(process: int) -> bool:
    return bool(descriptors.poll({process: descriptors.POLLIN}, 0))


# --- a container that does not run ----------------------------------------------------------


def _furnish(root: int, record: Record, points: tuple[Mount, ...]) -> None:
    """Mount binds and volumes as a start would; tmpfs mounts would be empty. Nothing outside ``root`` is touched.

    Raises InvalidInput for a volume of another kind, OSError.
    """
    with Directories(root, _make_directory) as directories:
        for point in points:
            if point.type == "tmpfs":
                continue
            if point.type != "bind":
                raise InvalidInput(
                    f"cannot reach the files of container {record.name} while it does not run: "
                    f"{point.destination} is a mount of type {point.type}, start the container first"
                )
            _bind(directories, point)
    if record.made.options.read_only:
        mounts.mount_setattr(root, set_=mounts.MOUNT_ATTR_RDONLY)


def _bind(directories: Directories, point: Mount) -> None:
    with _descriptor(_source(point)) as source:
        recursive = paths.AT_RECURSIVE if "rbind" in point.options else 0
        path = os.fsencode(point.destination)
        is_directory = os.path.isdir(f"/proc/self/fd/{source}")
        with _descriptor(
            mounts.open_tree(source, b"", mounts.OPEN_TREE_CLONE | paths.AT_EMPTY_PATH | recursive)
        ) as tree:
            if {"ro", "rro"} & set(point.options):
                mounts.mount_setattr(tree, set_=mounts.MOUNT_ATTR_RDONLY, recursive="rro" in point.options)
            if not is_directory:
                with _descriptor(_file(directories, path)) as file:
                    mounts.move_mount(tree, file)
                return
            directory = directories.at(path)
            mounts.move_mount(tree, directory.fd)
            directories.forget(directory.path)  # the name leads to the mount from now on


def _source(point: Mount) -> int:
    """What is to be mounted; a directory inside a volume is found without leaving it."""
    from runner.volumes.provide import SUBDIRECTORY

    source = os.open(point.source, os.O_PATH | os.O_CLOEXEC)
    inside = next((word.removeprefix(SUBDIRECTORY) for word in point.options if word.startswith(SUBDIRECTORY)), "")
    if not inside:
        return source
    with _descriptor(source):
        return paths.openat2(source, os.fsencode(inside), paths.O_PATH, 0, paths.RESOLVE_IN_ROOT)


@contextmanager
def _descriptor(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _file(directories: Directories, path: bytes) -> int:
    """A file to mount on, made where it is missing."""
    above, _, name = path.rpartition(b"/")
    parent = directories.at(above).fd
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, os.O_PATH | flags, dir_fd=parent)
    except FileNotFoundError:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o644, dir_fd=parent)


def _make_directory(parent: Directory, name: bytes) -> None:
    os.mkdir(name, 0o755, dir_fd=parent.fd)
