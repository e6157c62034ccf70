"""A bundle becomes a container: read, checked, started, recorded. What create and run share."""

from __future__ import annotations

import os
import pwd

from image.bare import suppress
from image.errors import InvalidInput
from image.value import dataclass, replace
from runner.runtime import cgroup, names, record
from runner.runtime.call import preserved
from runner.runtime.config_json import decode_spec
from runner.runtime.launch import launch
from runner.runtime.lifecycle import Lifecycle
from runner.runtime.privileges import probe
from runner.runtime.record import FIFO, Record
from runner.runtime.running import Running
from runner.runtime.spec import Mount, Seccomp, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.runtime.call import Call
    from runner.runtime.spawn import Watcher


@dataclass(frozen=True, slots=True)
class Bundle:
    """``spec`` has absolute sources; ``raw`` is its text."""

    directory: str
    raw: bytes
    spec: Spec
    rootfs: str


def read_bundle(call: Call) -> Bundle:
    """The one of --bundle, or here. Raises InvalidInput or InvalidSpec, also for an id that cannot be one."""
    names.check_id(call.container_id)
    directory = os.path.abspath(call.options.text("bundle") or ".")
    raw = read_file(f"{directory}/config.json")
    spec = decode_spec(raw)
    rootfs = os.path.join(directory, spec.root.path)
    if not os.path.isdir(rootfs):
        raise InvalidInput(f"cannot run {directory}: its root filesystem {rootfs} is not a directory")
    mounts = tuple(_absolute(mount, directory) for mount in spec.mounts)
    return Bundle(directory, raw, replace(spec, mounts=mounts), os.path.realpath(rootfs))


def read_file(path: str) -> bytes:
    """Raises InvalidInput."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from error


def _absolute(mount: Mount, directory: str) -> Mount:
    relative = mount.type == "bind" and mount.source and not mount.source.startswith("/")
    return replace(mount, source=f"{directory}/{mount.source}") if relative else mount


def begin(call: Call, bundle: Bundle, watcher: Watcher, *, wait: bool) -> tuple[Record, Running]:
    """Start the container in ``watcher``, or bring it up to exec with ``wait``; its record is written.

    Nothing of it is left when this raises, and its id is free again.
    """
    directory = record.new(call.root, call.container_id)
    found = Record(
        directory, call.container_id, bundle.directory, bundle.rootfs, _now(), bundle.spec.oci_version,
        _user_name(), place=cgroup.place(call.container_id, bundle.spec.cgroups_path),
        annotations=tuple(bundle.spec.annotations.items()),
    )  # fmt: skip
    try:
        found.write()
        with open(f"{directory}/config.json", "wb") as file:
            file.write(bundle.raw)
        if wait:
            os.mkfifo(f"{directory}/{FIFO}")
            os.chmod(f"{directory}/{FIFO}", 0o622)  # pid 1 opens it as the user that it has become
        return _launch(call, bundle, found, watcher, wait=wait)
    except BaseException:
        found.forget()
        raise


def _launch(call: Call, bundle: Bundle, found: Record, watcher: Watcher, *, wait: bool) -> tuple[Record, Running]:
    options, spec = call.options, bundle.spec
    console = options.text("console-socket")
    check_console(terminal=spec.process.terminal, console=console, detached=watcher.detached)
    _, environment = preserved(options)
    if environment:
        spec = replace(spec, process=replace(spec.process, env=spec.process.env + environment))

    def host_hooks(pid: int) -> bytes:
        from runner.runtime.hooks import encode_state, run_hooks

        described = encode_state(replace(found, pid=pid).oci_state("creating"))
        run_hooks("prestart", spec.hooks.prestart, described)
        run_hooks("createRuntime", spec.hooks.create_runtime, described)
        return described

    lifecycle = Lifecycle(
        detached=watcher.detached,
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
        watcher,
        privileges=probe(),
        container_id=found.id,
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
        _write_pid(pid_file, running.pid)


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


def _write_pid(path: str, pid: int) -> None:
    """Whoever waits for the file must never read half a number."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    try:
        with open(temporary, "w") as file:
            file.write(str(pid))
        os.rename(temporary, path)
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
    return decode_spec(read_file(f"{found.directory}/config.json"))
