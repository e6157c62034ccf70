"""Answers the calls of a step that believes to be root in its own root filesystem.

Each path is resolved by the kernel with the root as its limit, and the call is done here on
what was found, or a descriptor is handed over. Owners, and modes that would lock the keeper
out, are records beside the files (``store.owners``); so everything behaves as for root.

Deviations: a user other than root is a number that is told and recorded, its rights are
root's; attributes can't be set; a FIFO's reader does not wait for a writer.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from runner.isolation import filters
from runner.isolation.request import StepRequest
from runner.isolation.supervisor import memory
from runner.isolation.supervisor.paths import AT_FDCWD, Root
from runner.isolation.supervisor.procfs import ProcessView
from runner.runtime.notify import Listener, Notification
from store import owners
from store.linux.confine import fstatfs, renameat2

_NOFOLLOW, _FOLLOW, _EMPTY_PATH, _REMOVEDIR = 0x100, 0x400, 0x1000, 0x200
_TMPFILE: Final = 0o20000000
_KNOWN_FLAGS: Final = 0o17777777 | _TMPFILE
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_NS: Final = 10**9
_STAT = struct.Struct("QQQIIIIQqqqqQqQqQ3Q")
_UNCHANGED: Final = 0xFFFFFFFF


def _fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >= 1 << 31 else number


def _by_proc(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class Emulation(ProcessView):
    """``program_of`` tells which program of the step a patched copy stands for."""

    def __init__(
        self, listener: Listener, request: StepRequest, first: int, program_of: Callable[[str], str | None]
    ) -> None:
        super().__init__(listener, request.root, first)
        self._tree = Root(request.root)
        self._ids = (request.uid, request.gid)
        self._program_of = program_of
        self._handlers = {number: getattr(self, f"do_{name}") for number, name in filters.CALLS.items()}

    def _answer(self, call: Notification) -> None:
        value = self._handlers[call.number](call, *call.arguments)
        if value is not None:
            self._listener.answer(call.cookie, value)

    # What a call means

    def _string(self, call: Notification, address: int) -> str:
        return os.fsdecode(memory.read_string(call.pid, address))

    def _path(self, call: Notification, directory: int, address: int) -> str:
        """The path that a call means; by now the caller still is who it was."""
        path = self._string(call, address)
        if not path:
            raise _fail(errno.ENOENT)
        path = self._tree.absolute(call.pid, _signed(directory), path)
        self._check(call)
        return path

    def _check(self, call: Notification) -> None:
        if not self._listener.waits(call.cookie):
            raise _fail(errno.ESRCH)

    def _special(self, call: Notification, path: str) -> str | None:
        return self.real_path(call.pid, path) if path.startswith(("/proc", "/dev/")) else None

    @contextmanager
    def _descriptor(self, call: Notification, number: int) -> Iterator[int]:
        """What a descriptor of the caller's refers to."""
        number = _signed(number)
        place = f"/proc/{call.pid}/cwd" if number == AT_FDCWD else f"/proc/{call.pid}/fd/{number}"
        try:
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _fail(errno.EBADF) from None
        try:
            self._check(call)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _object(self, call: Notification, directory: int, address: int, flags: int = 0) -> Iterator[int]:
        """What ``path`` relative to ``directory`` is, with the flags of the ``at`` calls."""
        if flags & _EMPTY_PATH and not self._string(call, address):
            with self._descriptor(call, directory) as fd:
                yield fd
            return
        with self._tree.found(self._path(call, directory, address), follow=not flags & _NOFOLLOW) as fd:
            yield fd

    def _umask(self, pid: int) -> int:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))

    # Opening

    def do_open(self, call: Notification, path: int, flags: int, mode: int, *_: int) -> None:
        self._open(call, AT_FDCWD, path, flags, mode)

    def do_creat(self, call: Notification, path: int, mode: int, *_: int) -> None:
        self._open(call, AT_FDCWD, path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)

    def do_openat(self, call: Notification, directory: int, path: int, flags: int, mode: int, *_: int) -> None:
        self._open(call, directory, path, flags, mode)

    def _open(self, call: Notification, directory: int, address: int, flags: int, mode: int) -> None:
        path = self._path(call, directory, address)
        place = self._special(call, path)
        if place is not None:
            self._give(call, place, flags)
            return
        fd = self._open_inside(call, path, flags & _KNOWN_FLAGS, mode & 0o7777)
        try:
            self._listener.give(call.cookie, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def _open_inside(self, call: Notification, path: str, flags: int, mode: int) -> int:
        waits = not flags & (os.O_NONBLOCK | os.O_PATH)
        asked = flags | os.O_NOCTTY | (os.O_NONBLOCK if waits else 0)  # we must not wait for a FIFO's other end
        if flags & _TMPFILE == _TMPFILE:
            fd = self._tree.open(path, asked, mode | 0o600)
        elif flags & os.O_CREAT:
            fd = self._create(call, path, asked, mode)
        else:
            fd = self._tree.open(path, asked)
        if waits:
            os.set_blocking(fd, True)
        return fd

    def _create(self, call: Notification, path: str, flags: int, mode: int) -> int:
        """An existing file, or a new one with its owner and mode."""
        if not flags & os.O_EXCL:
            try:
                return self._tree.open(path, flags & ~os.O_CREAT)
            except FileNotFoundError:
                pass
        mode &= ~self._umask(call.pid)
        os.umask(0)
        try:
            fd = self._tree.open(path, flags | os.O_EXCL, mode | 0o600)
        except FileExistsError:  # a link that leads nowhere yet
            if flags & os.O_EXCL:
                raise
            fd = self._tree.open(path, flags, mode | 0o600)
        self._made(fd, mode, 0o600)
        return fd

    def _made(self, where: int | str, mode: int, needed: int) -> None:
        if self._ids != (0, 0):
            owners.record(where, *self._ids)
        if mode & needed != needed:
            owners.record_mode(where, mode)

    # Looking

    def do_stat(self, call: Notification, path: int, buffer: int, *_: int) -> int:
        return self._stat(call, AT_FDCWD, path, buffer, 0)

    def do_lstat(self, call: Notification, path: int, buffer: int, *_: int) -> int:
        return self._stat(call, AT_FDCWD, path, buffer, _NOFOLLOW)

    def do_newfstatat(self, call: Notification, directory: int, path: int, buffer: int, flags: int, *_: int) -> int:
        return self._stat(call, directory, path, buffer, flags)

    def do_fstat(self, call: Notification, fd: int, buffer: int, *_: int) -> int:
        with self._descriptor(call, fd) as found:
            memory.write(call.pid, buffer, self._stat_bytes(found))
        return 0

    def _stat(self, call: Notification, directory: int, path: int, buffer: int, flags: int) -> int:
        if not flags & _EMPTY_PATH:
            place = self._special(call, self._path(call, directory, path))
            if place is not None:
                memory.write(call.pid, buffer, _pack_stat(os.stat(place), None, None))
                return 0
        with self._object(call, directory, path, flags) as fd:
            memory.write(call.pid, buffer, self._stat_bytes(fd))
        return 0

    def _stat_bytes(self, fd: int) -> bytes:
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR}:
            return _pack_stat(status, None, None)
        place = os.fsencode(_by_proc(fd))
        return _pack_stat(status, owners.followed_record(place), owners.followed_mode(place))

    def do_access(self, call: Notification, path: int, mode: int, *_: int) -> int:
        return self.do_faccessat(call, AT_FDCWD, path, mode)

    def do_faccessat(self, call: Notification, directory: int, path: int, mode: int, *_: int) -> int:
        name = self._path(call, directory, path)
        place = self._special(call, name)
        if place is not None:
            if not os.access(place, mode):
                raise _fail(errno.EACCES)
            return 0
        with self._tree.found(name) as fd:
            status = os.fstat(fd)
            if mode & os.X_OK and not (status.st_mode & 0o111 or stat.S_ISDIR(status.st_mode)):
                raise _fail(errno.EACCES)
        return 0

    def do_readlink(self, call: Notification, path: int, buffer: int, size: int, *_: int) -> int:
        return self.do_readlinkat(call, AT_FDCWD, path, buffer, size)

    def do_readlinkat(self, call: Notification, directory: int, path: int, buffer: int, size: int, *_: int) -> int:
        name = self._path(call, directory, path)
        place = self._special(call, name)
        if place is not None:
            target = self.link(call.pid, place)
        else:
            with self._tree.parent(name) as (fd, last):
                target = os.readlink(last, dir_fd=fd)
        data = os.fsencode(target)[:size]
        memory.write(call.pid, buffer, data)
        return len(data)

    def link(self, pid: int, place: str) -> str:
        """As in a chroot, but a patched copy of a program is called by the program's name."""
        if place.endswith("/exe"):
            known = self._program_of(os.readlink(place))
            if known is not None:
                return known
        return super().link(pid, place)

    def do_getcwd(self, call: Notification, buffer: int, size: int, *_: int) -> int:
        data = os.fsencode(self._tree.directory_of(call.pid)) + b"\0"
        if len(data) > size:
            raise _fail(errno.ERANGE)
        memory.write(call.pid, buffer, data)
        return len(data)

    def do_statfs(self, call: Notification, path: int, buffer: int, *_: int) -> int:
        with self._object(call, AT_FDCWD, path) as fd:
            memory.write(call.pid, buffer, fstatfs(fd))
        return 0

    def do_getxattr(self, *_: object) -> int:
        raise _fail(errno.ENODATA)

    def do_listxattr(self, *_: object) -> int:
        return 0

    # Names

    def _at(self, call: Notification, directory: int, path: int, act: Callable[[int, str], None]) -> int:
        with self._tree.parent(self._path(call, directory, path)) as (fd, name):
            act(fd, name)
        return 0

    def do_mkdir(self, call: Notification, path: int, mode: int, *_: int) -> int:
        return self.do_mkdirat(call, AT_FDCWD, path, mode)

    def do_mkdirat(self, call: Notification, directory: int, path: int, mode: int, *_: int) -> int:
        name = self._path(call, directory, path)
        if os.path.normpath(name) == "/":
            raise _fail(errno.EEXIST)
        mode &= 0o7777 & ~self._umask(call.pid)
        with self._tree.parent(os.path.normpath(name) if name.endswith(("/.", "/./")) else name) as (fd, last):
            os.mkdir(last, 0o700, dir_fd=fd)
            place = f"{_by_proc(fd)}/{last}"
            os.chmod(place, mode | 0o700)
            self._made(place, mode, 0o700)
        return 0

    def do_rmdir(self, call: Notification, path: int, *_: int) -> int:
        return self._at(call, AT_FDCWD, path, lambda fd, name: os.rmdir(name, dir_fd=fd))

    def do_unlink(self, call: Notification, path: int, *_: int) -> int:
        return self._at(call, AT_FDCWD, path, lambda fd, name: os.unlink(name, dir_fd=fd))

    def do_unlinkat(self, call: Notification, directory: int, path: int, flags: int, *_: int) -> int:
        act = os.rmdir if flags & _REMOVEDIR else os.unlink
        return self._at(call, directory, path, lambda fd, name: act(name, dir_fd=fd))

    def do_rename(self, call: Notification, old: int, new: int, *_: int) -> int:
        return self.do_renameat2(call, AT_FDCWD, old, AT_FDCWD, new, 0)

    def do_renameat(self, call: Notification, old_dir: int, old: int, new_dir: int, new: int, *_: int) -> int:
        return self.do_renameat2(call, old_dir, old, new_dir, new, 0)

    def do_renameat2(
        self, call: Notification, old_dir: int, old: int, new_dir: int, new: int, flags: int, *_: int
    ) -> int:
        with (
            self._tree.parent(self._path(call, old_dir, old)) as (source, name),
            self._tree.parent(self._path(call, new_dir, new)) as (target, new_name),
        ):
            renameat2(source, name, target, new_name, flags)
        return 0

    def do_link(self, call: Notification, old: int, new: int, *_: int) -> int:
        return self.do_linkat(call, AT_FDCWD, old, AT_FDCWD, new, 0)

    def do_linkat(self, call: Notification, old_dir: int, old: int, new_dir: int, new: int, flags: int, *_: int) -> int:
        if flags & _EMPTY_PATH and not self._string(call, old):
            with (
                self._descriptor(call, old_dir) as fd,
                self._tree.parent(self._path(call, new_dir, new)) as (target, name),
            ):
                os.link(_by_proc(fd), name, dst_dir_fd=target, follow_symlinks=True)
            return 0
        path = self._path(call, old_dir, old)
        place = self._special(call, path)
        if place is not None:  # a temporary file without a name gets one by /proc/self/fd/N
            with self._tree.parent(self._path(call, new_dir, new)) as (target, name):
                self._check(call)
                os.link(place, name, dst_dir_fd=target, follow_symlinks=True)
            return 0
        with (
            self._tree.found(path, follow=bool(flags & _FOLLOW)) as fd,
            self._tree.parent(self._path(call, new_dir, new)) as (target, name),
        ):
            os.link(_by_proc(fd), name, dst_dir_fd=target, follow_symlinks=True)
        return 0

    def do_symlink(self, call: Notification, target: int, path: int, *_: int) -> int:
        return self.do_symlinkat(call, target, AT_FDCWD, path)

    def do_symlinkat(self, call: Notification, target: int, directory: int, path: int, *_: int) -> int:
        text = self._string(call, target)
        return self._at(call, directory, path, lambda fd, name: os.symlink(text, name, dir_fd=fd))

    def do_mknod(self, call: Notification, path: int, mode: int, device: int, *_: int) -> int:
        return self.do_mknodat(call, AT_FDCWD, path, mode, device)

    def do_mknodat(self, call: Notification, directory: int, path: int, mode: int, device: int, *_: int) -> int:
        """A device becomes an empty file that says what it stands for."""
        bits = mode & 0o7777 & ~self._umask(call.pid)
        is_device = stat.S_IFMT(mode) in {stat.S_IFCHR, stat.S_IFBLK}

        def make(fd: int, name: str) -> None:
            os.umask(0)
            kind = stat.S_IFREG if is_device else stat.S_IFMT(mode)
            os.mknod(name, kind | bits | 0o600, dir_fd=fd)
            if is_device:
                owners.record(f"{_by_proc(fd)}/{name}", *self._ids, mode=mode, device=device)

        return self._at(call, directory, path, make)

    # Owners, modes, times

    def do_chown(self, call: Notification, path: int, uid: int, gid: int, *_: int) -> int:
        return self.do_fchownat(call, AT_FDCWD, path, uid, gid, 0)

    def do_lchown(self, call: Notification, path: int, uid: int, gid: int, *_: int) -> int:
        return self.do_fchownat(call, AT_FDCWD, path, uid, gid, _NOFOLLOW)

    def do_fchown(self, call: Notification, fd: int, uid: int, gid: int, *_: int) -> int:
        with self._descriptor(call, fd) as found:
            _change_owner(found, uid, gid)
        return 0

    def do_fchownat(
        self, call: Notification, directory: int, path: int, uid: int, gid: int, flags: int, *_: int
    ) -> int:
        with self._object(call, directory, path, flags) as fd:
            _change_owner(fd, uid, gid)
        return 0

    def do_chmod(self, call: Notification, path: int, mode: int, *_: int) -> int:
        return self.do_fchmodat(call, AT_FDCWD, path, mode)

    def do_fchmod(self, call: Notification, fd: int, mode: int, *_: int) -> int:
        with self._descriptor(call, fd) as found:
            _change_mode(found, mode & 0o7777)
        return 0

    def do_fchmodat(self, call: Notification, directory: int, path: int, mode: int, *_: int) -> int:
        with self._object(call, directory, path) as fd:
            _change_mode(fd, mode & 0o7777)
        return 0

    def do_truncate(self, call: Notification, path: int, size: int, *_: int) -> int:
        with self._object(call, AT_FDCWD, path) as fd:
            os.truncate(_by_proc(fd), size)
        return 0

    def do_utimensat(self, call: Notification, directory: int, path: int, times: int, flags: int, *_: int) -> int:
        words = struct.unpack("4q", memory.read(call.pid, times, 32)) if times else (0, _NOW, 0, _NOW)
        if not path:
            with self._descriptor(call, directory) as fd:
                return _set_times(_by_proc(fd), os.fstat(fd), words)
        with self._object(call, directory, path, flags) as fd:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode):
                return _set_times(_by_proc(fd), status, words)
        set_link = partial(_set_link_times, words=words)
        return self._at(call, directory, path, set_link)

    def do_utimes(self, call: Notification, path: int, times: int, *_: int) -> int:
        return self.do_futimesat(call, AT_FDCWD, path, times)

    def do_futimesat(self, call: Notification, directory: int, path: int, times: int, *_: int) -> int:
        words = (0, _NOW, 0, _NOW)
        if times:
            a, b, c, d = struct.unpack("4q", memory.read(call.pid, times, 32))
            words = (a, b * 1000, c, d * 1000)
        with self._object(call, directory, path) as fd:
            return _set_times(_by_proc(fd), os.fstat(fd), words)

    def do_utime(self, call: Notification, path: int, times: int, *_: int) -> int:
        words = (0, _NOW, 0, _NOW)
        if times:
            a, m = struct.unpack("2q", memory.read(call.pid, times, 16))
            words = (a, 0, m, 0)
        with self._object(call, AT_FDCWD, path) as fd:
            return _set_times(_by_proc(fd), os.fstat(fd), words)

    # Who one is

    def do_getuid(self, *_: object) -> int:
        return self._ids[0]

    def do_getgid(self, *_: object) -> int:
        return self._ids[1]

    def do_getresuid(self, call: Notification, *addresses: int) -> int:
        return self._write_ids(call, addresses, self._ids[0])

    def do_getresgid(self, call: Notification, *addresses: int) -> int:
        return self._write_ids(call, addresses, self._ids[1])

    def _write_ids(self, call: Notification, addresses: tuple[int, ...], number: int) -> int:
        for address in addresses[:3]:
            memory.write(call.pid, address, struct.pack("I", number))
        return 0


def _pack_stat(status: os.stat_result, record: owners.Record | None, mode: int | None) -> bytes:
    """struct stat of x86-64, with what the records say."""
    mine = status.st_uid == os.geteuid()
    uid, gid = (record.uid, record.gid) if record else (0, 0) if mine else (status.st_uid, status.st_gid)
    bits = stat.S_IMODE(status.st_mode) if mode is None else mode
    kind = record.mode if record and record.mode else stat.S_IFMT(status.st_mode)
    device = record.device if record and record.mode else status.st_rdev
    return _STAT.pack(
        status.st_dev, status.st_ino, status.st_nlink, kind | bits, uid, gid, 0, device, status.st_size,
        status.st_blksize, status.st_blocks,
        *divmod(status.st_atime_ns, _NS), *divmod(status.st_mtime_ns, _NS), *divmod(status.st_ctime_ns, _NS), 0, 0, 0,
    )  # fmt: skip


def _change_owner(fd: int, uid: int, gid: int) -> None:
    """Record an owner, and touch the file as chown would: setid bits go, ctime moves."""
    status = os.fstat(fd)
    if stat.S_IFMT(status.st_mode) not in {stat.S_IFREG, stat.S_IFDIR}:
        return  # a link has no attribute to record it in
    place = os.fsencode(_by_proc(fd))
    known = owners.followed_record(place) or owners.Record(0, 0)
    uid, gid = (old if new & 0xFFFFFFFF == _UNCHANGED else new & 0xFFFFFFFF for new, old in
                ((uid, known.uid), (gid, known.gid)))  # fmt: skip
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o6000:
        os.chmod(place, stat.S_IMODE(status.st_mode) & ~0o6000)
    owners.record(_by_proc(fd), uid, gid, mode=known.mode, device=known.device)


def _change_mode(fd: int, mode: int) -> None:
    status = os.fstat(fd)
    needed = {stat.S_IFREG: 0o600, stat.S_IFDIR: 0o700}.get(stat.S_IFMT(status.st_mode), 0)
    os.chmod(_by_proc(fd), mode | needed)
    if needed:
        owners.record_mode(_by_proc(fd), mode if mode & needed != needed else None)


def _times(status: os.stat_result | None, words: tuple[int, ...]) -> tuple[int, int]:
    now = time.time_ns()
    found = []
    for seconds, nanoseconds, old in (
        (words[0], words[1], status.st_atime_ns if status else now),
        (words[2], words[3], status.st_mtime_ns if status else now),
    ):
        found.append(now if nanoseconds == _NOW else old if nanoseconds == _OMIT else seconds * _NS + nanoseconds)
    return found[0], found[1]


def _set_times(place: str, status: os.stat_result, words: tuple[int, ...]) -> int:
    os.utime(place, ns=_times(status, words))
    return 0


def _set_link_times(fd: int, name: str, words: tuple[int, ...]) -> None:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    os.utime(name, ns=_times(status, words), dir_fd=fd, follow_symlinks=False)
