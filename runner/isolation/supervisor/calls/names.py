"""Names are made, moved and removed below the step's root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from runner.isolation.supervisor.calls.call import EMPTY_PATH, Calls, by_proc, fail
from runner.isolation.supervisor.paths import AT_FDCWD
from runner.runtime.notify import Notification
from store import owners
from store.linux.confine import renameat2

_FOLLOW: Final = 0x400
_REMOVEDIR: Final = 0x200


class Names(Calls):
    def _at(self, call: Notification, directory: int, path: int, act: Callable[[int, str], None]) -> int:
        with self._tree.parent(self._path(call, directory, path)) as (fd, name):
            act(fd, name)
        return 0

    def do_mkdir(self, call: Notification, path: int, mode: int, *_: int) -> int:
        return self.do_mkdirat(call, AT_FDCWD, path, mode)

    def do_mkdirat(self, call: Notification, directory: int, path: int, mode: int, *_: int) -> int:
        name = self._path(call, directory, path)
        if os.path.normpath(name) == "/":
            raise fail(errno.EEXIST)
        mode &= 0o7777 & ~self._umask(call.pid)
        with self._tree.parent(os.path.normpath(name) if name.endswith(("/.", "/./")) else name) as (fd, last):
            os.mkdir(last, 0o700, dir_fd=fd)
            place = f"{by_proc(fd)}/{last}"
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
        if flags & EMPTY_PATH and not self._string(call, old):
            with (
                self._descriptor(call, old_dir) as fd,
                self._tree.parent(self._path(call, new_dir, new)) as (target, name),
            ):
                os.link(by_proc(fd), name, dst_dir_fd=target, follow_symlinks=True)
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
            os.link(by_proc(fd), name, dst_dir_fd=target, follow_symlinks=True)
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
                owners.record(f"{by_proc(fd)}/{name}", *self._ids, mode=mode, device=device)

        return self._at(call, directory, path, make)
