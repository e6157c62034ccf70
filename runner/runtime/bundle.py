"""A bundle becomes a container: read, checked, started, recorded. What create and run share."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from image.errors import InvalidInput
from image.value import dataclass
from runner.runtime import cgroup, record, state
from runner.runtime.config_json import decode_spec
from runner.runtime.launch import launch
from runner.runtime.lifecycle import Lifecycle
from runner.runtime.privileges import probe
from runner.runtime.record import FIFO, Record
from runner.runtime.running import Running, Stdio
from runner.runtime.spec import Mount, Seccomp, Spec
from runner.runtime.state import Lease

if TYPE_CHECKING:
    from runner.runtime.call import Call

_MOST_DESCRIPTORS: Final = 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """``spec`` has absolute sources; ``raw`` is its text."""

    directory: Path
    raw: bytes
    spec: Spec
    rootfs: Path


def read_bundle(call: Call) -> Bundle:
    """The one of --bundle, or here. Raises InvalidInput or InvalidSpec, also for an id that cannot be one."""
    state.check_id(call.container_id)
    directory = Path(os.path.abspath(call.options.text("bundle") or "."))
    raw = read_file(directory / "config.json")
    spec = decode_spec(raw)
    rootfs = directory / spec.root.path
    if not rootfs.is_dir():
        raise InvalidInput(f"cannot run {directory}: its root filesystem {rootfs} is not a directory")
    mounts = tuple(_absolute(mount, directory) for mount in spec.mounts)
    return Bundle(directory, raw, replace(spec, mounts=mounts), Path(os.path.realpath(rootfs)))


def read_file(path: Path) -> bytes:
    """Raises InvalidInput."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from error


def _absolute(mount: Mount, directory: Path) -> Mount:
    relative = mount.type == "bind" and mount.source and not mount.source.startswith("/")
    return replace(mount, source=str(directory / mount.source)) if relative else mount


def begin(call: Call, bundle: Bundle, *, detached: bool, wait: bool) -> tuple[Record, Running]:
    """Start the container, or bring it up to exec with ``wait``; its record is written.

    Nothing of it is left when this raises, and its id is free again.
    """
    directory = record.new(call.root, call.container_id)
    found = Record(
        str(directory), call.container_id, str(bundle.directory), str(bundle.rootfs), _now(), bundle.spec.oci_version,
        _user_name(), place=cgroup.place(call.container_id, bundle.spec.cgroups_path),
        annotations=tuple(bundle.spec.annotations.items()),
    )  # fmt: skip
    try:
        found.write()
        (directory / "config.json").write_bytes(bundle.raw)
        if wait:
            os.mkfifo(directory / FIFO)
            os.chmod(directory / FIFO, 0o622)  # pid 1 opens it as the user that it has become
        return _launch(call, bundle, found, detached=detached, wait=wait)
    except BaseException:
        found.forget()
        raise


def _launch(call: Call, bundle: Bundle, found: Record, *, detached: bool, wait: bool) -> tuple[Record, Running]:
    options, spec = call.options, bundle.spec
    terminal, console = spec.process.terminal, options.text("console-socket")
    check_console(terminal=terminal, console=console, detached=detached)
    extra, environment = preserved(options.number("preserve-fds") or 0)
    if environment:
        spec = replace(spec, process=replace(spec.process, env=spec.process.env + environment))

    def host_hooks(pid: int) -> bytes:
        from runner.runtime.hooks import encode_state, run_hooks

        described = encode_state(replace(found, pid=pid).oci_state("creating"))
        run_hooks("prestart", spec.hooks.prestart, described)
        run_hooks("createRuntime", spec.hooks.create_runtime, described)
        return described

    lifecycle = Lifecycle(
        detached=detached,
        fifo_directory=found.directory if wait else "",
        keyring=not options.flag("no-new-keyring"),
        pivot=not options.flag("no-pivot"),
        every_group=True,
        hooks=host_hooks if spec.hooks.before_start else None,
        listener=notify(spec.seccomp, found),
    )
    running = launch(
        spec,
        bundle.rootfs,
        privileges=probe(),
        lease=Lease(found.id, Path(found.directory), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)),
        stdio=Stdio(extra=extra) if terminal else own_stdio(extra),
        trace=call.trace,
        lifecycle=lifecycle,
    )
    try:
        for warning in running.warnings:
            call.warn(warning)
        found = replace(found, pid=running.pid, start_time=record.start_time(running.pid), groups=running.groups)
        found.write()
        hand_over_all(running, console=console, pidfd=options.text("pidfd-socket"), pid_file=options.text("pid-file"))
    except BaseException:
        running.detached = False
        running.close()
        cgroup.ControlGroups(running.groups).remove()
        raise
    return found, running


def check_console(*, terminal: bool, console: str, detached: bool) -> None:
    """A terminal needs somebody who holds its other end. Raises InvalidInput."""
    if terminal and detached and not console:
        raise InvalidInput("cannot allocate a terminal for a detached process without --console-socket")
    if console and not (terminal and detached):
        raise InvalidInput("--console-socket is for a detached process with a terminal")


def hand_over_all(running: Running, *, console: str, pidfd: str, pid_file: str) -> None:
    """What the caller wants to have before the command returns. Raises InvalidInput."""
    if console and running.console is not None:
        from runner.runtime.handover import hand_over

        hand_over(console, running.console, b"/dev/ptmx")
    if pidfd:
        from runner.runtime.handover import hand_over

        hand_over(pidfd, running.pidfd, b"pidfd")
    if pid_file:
        _write_pid(Path(pid_file), running.pid)


def notify(seccomp: object, found: Record) -> Callable[[int, int], None] | None:
    """Brings the listener of a filter that notifies to the agent that the bundle names."""
    if not isinstance(seccomp, Seccomp) or not seccomp.listener_path:
        return None
    path, metadata = seccomp.listener_path, seccomp.listener_metadata

    def bring(pid: int, fd: int) -> None:
        from runner.runtime.handover import hand_over, listener_state

        whose = found.oci_state() if found.pid else replace(found, pid=pid).oci_state("creating")
        hand_over(path, fd, listener_state(whose, pid, metadata))

    return bring


def own_stdio(extra: tuple[int, ...] = ()) -> Stdio:
    """Our descriptors are the container's; a closed one is /dev/null."""
    given: list[int | None] = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
            given.append(fd)
        except OSError:
            given.append(None)
    return Stdio(given[0], given[1], given[2], extra)


def preserved(count: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Descriptors that go along (those of LISTEN_FDS, then ``count`` more), and what the environment says of them.

    Raises InvalidInput when one is not open.
    """
    listening = os.environ.get("LISTEN_FDS", "0")
    passed = int(listening) if listening.isdigit() else 0
    if count < 0 or passed + count > _MOST_DESCRIPTORS:
        raise InvalidInput(f"cannot preserve {passed + count} descriptors")
    wanted = tuple(range(3, 3 + passed + count))
    for fd in wanted:
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidInput(f"cannot preserve descriptor {fd}: it is not open") from None
    return wanted, (f"LISTEN_FDS={passed}", "LISTEN_PID=1") if passed else ()


def _write_pid(path: Path, pid: int) -> None:
    """Whoever waits for the file must never read half a number."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(str(pid))
        temporary.rename(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from error


def _now() -> str:
    import time

    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 10**9))}.{now % 10**9:09d}Z"


def _user_name() -> str:
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return ""


def stored_spec(found: Record) -> Spec:
    """The container's configuration as it was at create. Raises InvalidInput or InvalidSpec."""
    return decode_spec(read_file(Path(found.directory) / "config.json"))
