"""One process without namespaces: the builder's side. The supervisor does the rest in a process of its own."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal

from image.errors import CommandNotStarted, InvalidInput, KernelError, StorageError
from image.value import dataclass
from runner.isolation.request import StepRequest
from runner.runtime.accounts import account_in
from runner.runtime.child_root import Refused
from store import recorded
from store.linux import paths, processes

Stream = Literal["stdout", "stderr"]
_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from runner.isolation.supervisor.main import main; main()"
_PACKAGES: Final = str(Path(__file__).resolve().parents[2])
_STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")
_POLL_MS: Final = 100
_BLOCK: Final = 1 << 16
_ABOVE_FIXED: Final = 10
_DEVICES: Final = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
}  # fmt: skip
_LINKS: Final = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
                 "stderr": "/proc/self/fd/2"}  # fmt: skip
COVERED: Final = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf")
"""What a step sees of ours instead of its image's."""


@dataclass(frozen=True, slots=True)
class Given:
    """A host path that the step sees at ``target``: a copy, or the directory itself if it is writable."""

    source: Path | None
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Command:
    """What runs. ``user`` as in a Dockerfile."""

    args: Sequence[str]
    env: Sequence[str]
    cwd: str
    user: str
    hosts: Sequence[tuple[str, str]] = ()


def run(
    rung: str,
    root: Path,
    command: Command,
    given: Sequence[Given],
    output: Callable[[Stream, bytes], None] | None,
    cancelled: Callable[[], bool],
    stdin: int | None = None,
) -> int:
    """Run a process in the plain directory ``root`` and end all that it started: its status, or 128 + signal.

    Paths of ``COVERED`` and of ``given`` are free in the root, and what is put there is the
    caller's to remove. Without ``output`` the process has this one's own standard streams.

    Raises KernelError when the isolation can't be had, CommandNotStarted, InvalidInput for an
    unknown user, StorageError.
    """
    processes.prctl(processes.PR_SET_DUMPABLE, 0)  # the step may have our uid: it shall not read our memory
    with ExitStack() as held:
        place = held.enter_context(_Placing.opened(root))
        try:
            place.furnish(command.hosts)
            for item in given:
                held.callback(place.give(item))
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise StorageError(f"prepare a step's root filesystem: {error.filename or root}: {why}") from error
        uid, gid, groups, home = place.account(command.user)
        env = command.env if any(item.startswith("HOME=") for item in command.env) else (*command.env, f"HOME={home}")
        if rung == "emulated":
            env = (*env, f"APT_CONFIG=/{_APT_CONFIG}") if place.disable_apt_sandbox() else env
        cache = root.parent / "programs"
        cache.mkdir(exist_ok=True)
        request = StepRequest(rung, os.path.realpath(root), os.path.realpath(cache), command.args, env,
                              command.cwd, uid, gid, groups)  # fmt: skip
        return _supervise(request, output, cancelled, stdin)


_APT_CONFIG: Final = "dev/.apt.conf"


class _Placing:
    """Puts files into a root whose links are hostile: each path is opened with the root as its limit."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    @contextmanager
    def opened(cls, root: Path) -> Iterator[_Placing]:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield cls(fd)
        finally:
            os.close(fd)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Its time stays: what we put there is no change of the step's."""
        directory, _, name = path.strip("/").rpartition("/")
        fd = paths.openat2(
            self._fd, os.fsencode(directory) or b".", os.O_PATH | os.O_DIRECTORY, resolve=paths.RESOLVE_IN_ROOT
        )
        try:
            times = os.fstat(fd)
            yield fd, name
            os.utime(f"/proc/self/fd/{fd}", ns=(times.st_atime_ns, times.st_mtime_ns))
        finally:
            os.close(fd)

    def furnish(self, hosts: Sequence[tuple[str, str]]) -> None:
        """/dev, /proc, /sys and the files of the network, which is the host's."""
        for name in ("dev", "proc", "sys"):
            with self._parent(name) as (fd, last):
                os.mkdir(last, 0o755 if name == "dev" else 0o555, dir_fd=fd)
        self._devices()
        added = "".join(f"{address}\t{name}\n" for name, address in hosts)
        self._write("etc/hosts", _host_file("/etc/hosts") + added.encode())
        self._write("etc/hostname", os.uname().nodename.encode() + b"\n")
        self._write("etc/resolv.conf", _host_file("/etc/resolv.conf"))

    def _devices(self) -> None:
        """Nodes where they can be made; the supervisor opens the rest, for which a name is enough."""
        fd = paths.openat2(self._fd, b"dev", os.O_RDONLY | os.O_DIRECTORY, resolve=paths.RESOLVE_IN_ROOT)
        try:
            for name, (major, minor) in _DEVICES.items():
                try:
                    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=fd)
                except PermissionError:
                    os.mknod(name, stat.S_IFREG | 0o666, dir_fd=fd)
                os.chmod(name, 0o666, dir_fd=fd)
            for name, target in _LINKS.items():
                os.symlink(target, name, dir_fd=fd)
            os.mkdir("shm", dir_fd=fd)
            os.chmod("shm", 0o1777, dir_fd=fd)
        finally:
            os.close(fd)

    def disable_apt_sandbox(self) -> bool:
        """apt gives up its rights before it downloads, which emulated rights can't show it. False without apt."""
        try:
            os.close(paths.openat2(self._fd, b"etc/apt", paths.O_PATH, resolve=paths.RESOLVE_IN_ROOT))
        except OSError:
            return False
        self._write(_APT_CONFIG, b'APT::Sandbox::User "root";\n')
        return True

    def _write(self, path: str, data: bytes) -> None:
        with self._parent(path) as (parent, name):
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                os.fchmod(fd, 0o644)

    def give(self, item: Given) -> Callable[[], None]:
        """Put a path in place; what is to be called when the process has ended."""
        with self._parent(item.target) as (parent, name):
            target = f"/proc/self/fd/{parent}/{name}"
            if item.source is None:
                os.mkdir(target, 0o1777)
            elif item.source.is_dir() and not item.read_only:
                return self._lend(item.source, item.target, target)
            elif item.source.is_dir():
                shutil.copytree(item.source, target, symlinks=True, copy_function=_copy)
            elif item.source.is_file():
                _copy(item.source, target)
            else:
                raise KernelError(f"give a step {item.target}", "mount", errno.EPERM, str(item.source))
        return _nothing

    def _lend(self, source: Path, path: str, target: str) -> Callable[[], None]:
        """The directory itself, for as long as the step runs; a copy where it lies on another file system."""
        try:
            os.rename(source, target)
        except FileNotFoundError:  # another step has it: this one begins with an empty one
            os.mkdir(target, 0o755)

        def take_back() -> None:
            with self._parent(path) as (parent, name), suppress(FileNotFoundError, FileExistsError):
                if not source.exists():
                    os.rename(name, source, src_dir_fd=parent)

        return take_back

    def account(self, user: str) -> tuple[int, int, tuple[int, ...], str]:
        """uid, gid, groups and home by the root's own files. Raises InvalidInput for an unknown name."""
        try:
            uid, gid, groups, home = account_in(self._fd, user)
        except Refused as error:
            raise InvalidInput(error.text) from error
        return uid, gid, groups, os.fsdecode(home)


def _nothing() -> None:
    pass


def _copy(source: str | Path, target: str | Path) -> None:
    shutil.copyfile(source, target)
    recorded.copy_metadata(os.fspath(source), os.fspath(target))


def _host_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _supervise(
    request: StepRequest,
    output: Callable[[Stream, bytes], None] | None,
    cancelled: Callable[[], bool],
    stdin: int | None,
) -> int:
    with ExitStack() as held:
        control, report = _pipe(held), _pipe(held)
        stdio: list[BinaryIO] = [
            held.enter_context(open(os.devnull if stdin is None else os.dup(stdin), "rb", buffering=0))
        ]
        streams: dict[int, Stream] = {}
        if output is None:
            stdio += [held.enter_context(open(os.dup(fd), "wb", buffering=0)) for fd in (1, 2)]
        else:
            for stream in _STREAMS:
                reader, writer = _pipe(held)
                streams[reader.fileno()] = stream
                stdio.append(writer)
        pid = _spawn([file.fileno() for file in (*stdio, control[0], report[1])])
        for file in (*stdio, control[0], report[1]):
            file.close()
        data = request.to_json()
        control[1].write(len(data).to_bytes(8, "little") + data)
        message = _relay(streams, report[0].fileno(), control[1], output, cancelled)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        return _status(request, message)


def _pipe(held: ExitStack) -> tuple[BinaryIO, BinaryIO]:
    """Both ends as files, which are safe to close twice: threads beside us take up freed numbers."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    return (
        held.enter_context(open(reader, "rb", buffering=0)),
        held.enter_context(open(writer, "wb", buffering=0)),
    )


def _spawn(descriptors: Sequence[int]) -> int:
    """A bare interpreter with an empty environment and these descriptors from 0 on."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_FIXED) for fd in descriptors]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(moved)]
        argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGES]
        return os.posix_spawn(
            sys.executable, argv, {}, file_actions=actions, setsigmask=(), setsigdef=(signal.SIGPIPE,)
        )
    finally:
        for fd in moved:
            os.close(fd)


def _relay(
    streams: dict[int, Stream],
    report: int,
    control: BinaryIO,
    output: Callable[[Stream, bytes], None] | None,
    cancelled: Callable[[], bool],
) -> bytes:
    """Pass output on until the supervisor has ended; what it reported."""
    poll = select.poll()
    for fd in (*streams, report):
        poll.register(fd, select.POLLIN)
    left = {*streams, report}
    message = b""
    ending = False
    while left:
        for fd, _ in poll.poll(_POLL_MS):
            data = os.read(fd, _BLOCK)
            if not data:
                poll.unregister(fd)
                left.discard(fd)
            elif fd == report:
                message += data
            elif output is not None:
                output(streams[fd], data)
        if cancelled() and not ending:
            ending = True
            control.close()  # by which the supervisor knows that it is to end everything
    return message


def _status(request: StepRequest, message: bytes) -> int:
    word, _, rest = message.decode("utf-8", "replace").partition(" ")
    if word == "exit":
        return int(rest)
    if word == "command":
        status, _, why = rest.partition(" ")
        raise CommandNotStarted(request.args[0], why, int(status))
    code, _, text = rest.partition(" ")
    raise KernelError(f"isolate a step ({request.rung}): {text}", "seccomp", int(code or 0) or errno.EIO, request.root)
