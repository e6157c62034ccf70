"""exec and chdir of an emulated step: the two calls whose path the kernel itself must follow.

The tracer stops a process at them alone and puts another path into the call's register: where
the file or directory really lies. A dynamic program names its loader by an absolute path, so
a copy of the program, with the loader's real path, is executed instead.

A thread may change the path again before the kernel reads it. It can then reach what landlock
lets it execute, which is the root and the copies, and no more.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from contextlib import suppress
from typing import Final

from runner.isolation import filters
from runner.isolation.request import StepRequest
from runner.isolation.supervisor import memory
from runner.isolation.supervisor.paths import AT_FDCWD, Root
from store import owners
from store.linux.confine import (
    PTRACE_CONT,
    PTRACE_EVENT_SECCOMP,
    PTRACE_EVENT_STOP,
    PTRACE_LISTEN,
    PTRACE_O_EXITKILL,
    PTRACE_O_TRACECLONE,
    PTRACE_O_TRACEFORK,
    PTRACE_O_TRACESECCOMP,
    PTRACE_O_TRACEVFORK,
    PTRACE_SEIZE,
    Registers,
    get_registers,
    ptrace,
    set_registers,
)

_OPTIONS: Final = (
    PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACESECCOMP
)
_ALL_THREADS: Final = 0x40000000
_STOPPING: Final = (19, 20, 21, 22)
_RED_ZONE: Final = 256
_SCRIPTS_DEPTH: Final = 5
_PT_INTERP: Final = 3
_LIMIT_WORDS: Final = 1 << 17


class Tracer:
    """All processes of one step."""

    def __init__(self, request: StepRequest) -> None:
        self._root = Root(request.root)
        self._cache = request.cache
        self._copies: dict[tuple[int, int, int], str] = {}
        self._programs: dict[str, str] = {}

    def seize(self, pid: int) -> None:
        """Raises OSError where processes can't be traced."""
        ptrace(PTRACE_SEIZE, pid, _OPTIONS)

    def program_of(self, copy: str) -> str | None:
        """The program, in the step's words, that a copy stands for."""
        return self._programs.get(copy)

    def reap(self, first: int) -> int | None:
        """Let every stopped process go on; the status of the first one when it has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | _ALL_THREADS)
            except ChildProcessError:
                return 126
            if pid == 0:
                return None
            if os.WIFSTOPPED(status):
                with suppress(ProcessLookupError):
                    self._go_on(pid, status)
            elif pid == first:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _go_on(self, pid: int, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == PTRACE_EVENT_SECCOMP:
            self._redirect(pid)
            ptrace(PTRACE_CONT, pid)
        elif event == PTRACE_EVENT_STOP:
            ptrace(PTRACE_LISTEN if number in _STOPPING else PTRACE_CONT, pid)
        else:
            ptrace(PTRACE_CONT, pid, 0 if event else number)

    def _redirect(self, pid: int) -> None:
        registers = get_registers(pid)
        try:
            if registers.orig_rax == filters.EXECVE:
                self._execute(pid, registers)
            else:
                self._change_directory(pid, registers)
        except OSError as error:
            registers.orig_rax = 2**64 - 1  # no call at all, with this result
            registers.rax = 2**64 - (error.errno or errno.EIO)
        set_registers(pid, registers)

    def _change_directory(self, pid: int, registers: Registers) -> None:
        path = self._root.absolute(pid, AT_FDCWD, os.fsdecode(memory.read_string(pid, registers.rdi)))
        fd = self._root.open(path, os.O_PATH | os.O_DIRECTORY)
        try:
            registers.rdi = _place(pid, registers, [os.fsencode(self._root.real(fd)) + b"\0"])[0]
        finally:
            os.close(fd)

    def _execute(self, pid: int, registers: Registers) -> None:
        """Find the program, by way of any scripts' interpreters, and execute its copy."""
        given = os.fsdecode(memory.read_string(pid, registers.rdi))
        path = self._root.absolute(pid, AT_FDCWD, given)
        if path.startswith("/proc/") and path.endswith("/exe"):
            path = self._own_program(path, pid)
        words: list[bytes | int] | None = None
        for _ in range(_SCRIPTS_DEPTH):
            program, interpreter = self._look(path)
            if interpreter is None:
                break
            rest = words[1:] if words is not None else list(_pointers(pid, registers.rsi))[1:]
            words = [*interpreter, os.fsencode(given if words is None else path), *rest]
            path = os.fsdecode(interpreter[0])
            path = path if path.startswith("/") else self._root.absolute(pid, AT_FDCWD, path)
        else:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if words is None:
            registers.rdi = _place(pid, registers, [os.fsencode(program) + b"\0"])[0]
            return
        texts = [word + b"\0" for word in words if isinstance(word, bytes)]
        blank = bytes(8 * (len(words) + 1))
        addresses = _place(pid, registers, [os.fsencode(program) + b"\0", *texts, blank])
        made = iter(addresses[1:-1])
        table = b"".join(struct.pack("Q", next(made) if isinstance(word, bytes) else word) for word in words)
        memory.write(pid, addresses[-1], table + bytes(8))
        registers.rdi, registers.rsi = addresses[0], addresses[-1]

    def _own_program(self, path: str, pid: int) -> str:
        whom = pid if path.startswith("/proc/self/") else int(path.split("/")[2])
        place = os.readlink(f"/proc/{whom}/exe")
        return self.program_of(place) or self._root.inside(place) or path

    def _look(self, path: str) -> tuple[str, list[bytes] | None]:
        """What to execute, and for a script the words of its first line."""
        fd = self._root.open(path, os.O_PATH)
        try:
            status = os.fstat(fd)
            place = f"/proc/self/fd/{fd}"
            known = owners.followed_mode(os.fsencode(place))
            mode = status.st_mode if known is None else known
            if not stat.S_ISREG(status.st_mode) or not mode & 0o111:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            with open(place, "rb", buffering=0) as file:
                head = file.read(4096)
                if head[:2] == b"#!":
                    words = head[2:].split(b"\n")[0].strip().split(None, 1)
                    if not words:
                        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
                    return "", [word.strip() for word in words]
                return self._copy(self._root.real(fd), status, head, file.fileno()), None
        finally:
            os.close(fd)

    def _copy(self, real: str, status: os.stat_result, head: bytes, fd: int) -> str:
        """The program itself, or a copy of it that names the real loader."""
        key = (status.st_dev, status.st_ino, status.st_ctime_ns)
        known = self._copies.get(key)
        if known is None:
            known = self._copies[key] = self._patched(real, head, fd)
        return known

    def _patched(self, real: str, head: bytes, fd: int) -> str:
        found = _loader(head)
        if found is None:
            return real
        header, offset, size = found
        name = os.pread(fd, min(size, 4096), offset).rstrip(b"\0")
        loader = self._root.open(os.fsdecode(name), os.O_PATH)
        try:
            place = os.fsencode(self._root.real(loader)) + b"\0"
        finally:
            os.close(loader)
        directory = f"{self._cache}/{os.getpid()}-{len(self._copies)}"
        os.mkdir(directory, 0o755)
        copy = f"{directory}/{os.path.basename(real)}"  # a process is called by it
        with open(copy, "xb") as file, open(f"/proc/self/fd/{fd}", "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
            end = file.tell()
            file.write(place)
            file.seek(header + 8)
            file.write(struct.pack("<Q", end))
            file.seek(header + 32)
            file.write(struct.pack("<QQ", len(place), len(place)))
        os.chmod(copy, 0o755)
        self._programs[copy] = self._root.inside(real) or real
        return copy

    def remove_copies(self) -> None:
        for copy in self._programs:
            with suppress(OSError):
                os.unlink(copy)
                os.rmdir(os.path.dirname(copy))


def _loader(head: bytes) -> tuple[int, int, int] | None:
    """Where the program header of a 64-bit program's loader is, and the name it refers to."""
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return None
    table, size, count = (*struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54))
    for number in range(count):
        at = table + number * size
        if at + 56 > len(head):
            return None
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", head, at)
        if kind == _PT_INTERP:
            return at, offset, length
    return None


def _pointers(pid: int, address: int) -> list[int]:
    """The addresses of an argument list, up to the null. Raises OSError (E2BIG)."""
    found: list[int] = []
    while address and len(found) < _LIMIT_WORDS:
        data = memory.read(pid, address + 8 * len(found), 8)
        (word,) = struct.unpack("Q", data) if len(data) == 8 else (0,)
        if not word:
            return found
        found.append(word)
    if address:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    return found


def _place(pid: int, registers: Registers, pieces: list[bytes]) -> list[int]:
    """Put data below the stack, where nothing of the process is; the addresses."""
    at = (registers.rsp - _RED_ZONE - sum(len(piece) + 16 for piece in pieces)) & ~15
    addresses: list[int] = []
    for piece in pieces:
        memory.write(pid, at, piece)
        addresses.append(at)
        at = (at + len(piece) + 15) & ~15
    return addresses
