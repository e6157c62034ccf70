"""/proc and /dev for a step that has neither: an allow-list, answered with open descriptors.

Nothing of a process outside the step is ever given: no environment, no memory, no root, no
working directory. A directory is never given, as ``openat(fd, "../..")`` would leave a
chroot. Files of the whole system are for reading, whatever was asked.

In a chroot, other paths proceed: the chroot confines them.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runner.isolation import filters
from runner.isolation.supervisor import memory
from runner.runtime.notify import Listener, Notification
from store.linux.confine import set_file_ids

DEVICES: Final = frozenset({"null", "zero", "full", "random", "urandom", "tty"})
_SYSTEM: Final = re.compile(
    r"(cpuinfo|meminfo|stat|uptime|loadavg|version|filesystems|cgroups|devices|swaps|vmstat"
    r"|sys/(kernel|vm|fs)/[a-z0-9_/-]+|sys/net/core/somaxconn)"
)
_PROCESS: Final = re.compile(
    r"(status|stat|statm|maps|smaps|smaps_rollup|cmdline|comm|cgroup|limits|oom_score_adj|oom_score|environ|exe"
    r"|auxv|io|loginuid|uid_map|gid_map|setgroups|timerslack_ns|coredump_filter|mounts|mountinfo"
    r"|fdinfo/\d+|task/\d+/(comm|stat|status))"
)
_WRITABLE: Final = re.compile(r"(oom_score_adj|comm|coredump_filter|timerslack_ns|loginuid|task/\d+/comm)")
_DESCRIPTOR: Final = re.compile(r"fd/\d+")
_STREAMS: Final = {"stdin": "0", "stdout": "1", "stderr": "2"}
_PARENTS_LIMIT: Final = 256


class ProcessView:
    """Answers a step's calls. ``first`` is its first process, of which all others descend."""

    def __init__(self, listener: Listener, root: str, first: int) -> None:
        self._listener = listener
        self._root = root
        self._first = first

    def one(self) -> None:
        """Receive one call and answer it."""
        call = self._listener.take()
        if call is None:
            return
        try:
            with _as_owner(call.pid):
                self._answer(call)
        except OSError as error:
            self._listener.answer(call.cookie, -(error.errno or errno.EIO))

    def _answer(self, call: Notification) -> None:
        position = 0 if call.number in {filters.OPEN, filters.READLINK} else 1
        try:
            path = memory.read_string(call.pid, call.arguments[position])
        except PermissionError:  # between a change of uid and exec nobody may look; the chroot confines it
            self._listener.go_on(call.cookie)
            return
        place = self.real_path(call.pid, os.fsdecode(path)) if path.startswith((b"/proc", b"/dev/")) else None
        if place is None:
            self._listener.go_on(call.cookie)
        elif call.number in {filters.OPEN, filters.OPENAT}:
            flags = call.arguments[position + 1]
            self._give(call, place, flags)
        else:
            self._read_link(call, place, position)

    def _give(self, call: Notification, place: str, flags: int) -> None:
        fd = self.open(call, place, flags)
        try:
            self._listener.give(call.cookie, fd, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(fd)

    def open(self, call: Notification, place: str, flags: int) -> int:
        """A descriptor of what ``real_path`` allowed. Raises OSError."""
        wanted = flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_DIRECTORY | os.O_PATH)
        wanted = restricted(place, wanted)
        fd = os.open(place, wanted | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if not self._listener.waits(call.cookie):  # the pid in the path may be another's by now
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            if not flags & os.O_NONBLOCK:
                os.set_blocking(fd, True)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _read_link(self, call: Notification, place: str, position: int) -> None:
        target = os.fsencode(self.link(call.pid, place))[: call.arguments[position + 2]]
        memory.write(call.pid, call.arguments[position + 1], target)
        self._listener.answer(call.cookie, len(target))

    def link(self, pid: int, place: str) -> str:
        """Where a link of /proc leads, in the step's own words. Raises OSError."""
        if place.endswith("/"):
            return str(self.process_of(pid))
        target = os.readlink(place)
        if target == self._root or target.startswith(self._root + "/"):
            return target[len(self._root) :] or "/"
        return target

    def real_path(self, pid: int, path: str) -> str | None:
        """The path of the outer system that answers for one of the step's; None when none does."""
        path = posixpath.normpath(path)
        if path.startswith("/dev/"):
            name = path[5:]
            if name in DEVICES:
                return f"/dev/{name}"
            if name in _STREAMS:
                name = f"fd/{_STREAMS[name]}"
            if not name.startswith("fd/"):
                return None
            path = f"/proc/self/{name}"
        if not path.startswith("/proc/"):
            return None
        return self._of_proc(pid, path[6:])

    def _of_proc(self, pid: int, path: str) -> str | None:
        if path == "mounts":
            path = "self/mounts"
        head, _, rest = path.partition("/")
        if head in {"self", "thread-self"} or head.isdigit():
            whom = self.process_of(pid) if head == "self" else pid if head == "thread-self" else int(head)
            if head.isdigit() and not self._is_ours(whom):
                return None
            if not rest or rest in {"cwd", "root"} or _PROCESS.fullmatch(rest) or _DESCRIPTOR.fullmatch(rest):
                return f"/proc/{whom}/{rest}"
            return None
        return f"/proc/{path}" if _SYSTEM.fullmatch(path) else None

    def process_of(self, thread: int) -> int:
        """The process that a thread belongs to."""
        with open(f"/proc/{thread}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Tgid:"))

    def _is_ours(self, pid: int) -> bool:
        supervisor = os.getpid()
        for _ in range(_PARENTS_LIMIT):
            if pid == self._first:
                return True
            try:
                with open(f"/proc/{pid}/stat") as file:
                    pid = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                return False
            if pid == supervisor:
                return True  # an orphan of the step's: the supervisor itself starts nothing else
            if pid <= 1:
                return False
        return False


@contextmanager
def _as_owner(pid: int) -> Iterator[None]:
    """With the rights of a process's user: root without CAP_SYS_PTRACE may look at root's processes alone."""
    status = os.stat(f"/proc/{pid}")
    if os.geteuid() or not (status.st_uid or status.st_gid):
        yield
        return
    set_file_ids(status.st_uid, status.st_gid)
    try:
        yield
    finally:
        set_file_ids(0, 0)


def restricted(place: str, flags: int) -> int:
    """Open flags with no more right than the step would have.

    A descriptor is opened again with the rights that it has: a file that was opened for reading stays so.
    Raises OSError.
    """
    access = flags & os.O_ACCMODE
    rest = re.sub(r"^/proc/\d+/", "", place)
    if place.startswith("/dev/"):
        return flags
    if _DESCRIPTOR.fullmatch(rest):
        has = _access_mode(place)
        if has not in {os.O_RDWR, access}:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return flags
    if access != os.O_RDONLY and not (rest != place and _WRITABLE.fullmatch(rest)):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return flags


def _access_mode(place: str) -> int:
    process, _, number = place.rpartition("/fd/")
    with open(f"{process}/fdinfo/{number}") as info:
        flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
    return flags & os.O_ACCMODE
