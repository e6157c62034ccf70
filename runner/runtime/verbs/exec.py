"""``exec``: one more process in a container that runs."""

from __future__ import annotations

import os

from image.errors import Conflict, ContainerNotFound, InvalidInput
from image.value import replace
from runner.runtime.call import preserved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.runtime.arguments import Options
    from runner.runtime.call import Call
    from runner.runtime.record import Record
    from runner.runtime.running import Running
    from runner.runtime.spawn import Watcher
    from runner.runtime.spec import Process, Spec, User


def run(call: Call) -> int:
    with call.spawn(detached=call.options.flag("detach")) as watcher:  # before the imports below: both take as long
        return _run(call, watcher)


def _run(call: Call, watcher: Watcher) -> int:
    from runner.runtime.bundle import check_console, stored_spec

    found, options = call.container(), call.options
    status = found.status
    if status == "stopped":
        raise Conflict(f"cannot exec in container {found.id}: it is stopped")
    if status == "paused" and not options.flag("ignore-paused"):
        raise Conflict(f"cannot exec in container {found.id}: it is paused")
    spec = stored_spec(found)
    process = wanted_process(spec.process, options, call.arguments.operands[1:])
    process = replace(process, env=process.env + preserved(options)[1])
    check_console(terminal=process.terminal, console=options.text("console-socket"), detached=watcher.detached)
    if watcher.detached:
        with _entered(call, watcher, found, spec, process):
            return 0
    from runner.containers.signals import Signals
    from runner.runtime.verbs.run import follow

    with Signals() as signals, _entered(call, watcher, found, spec, process) as running:
        return follow(running, signals)


def _entered(call: Call, watcher: Watcher, found: Record, spec: Spec, process: Process) -> Running:
    """The process, started; whoever waits for its descriptors has them. Raises Conflict, TierceError."""
    from runner.runtime.bundle import hand_over_all, notify
    from runner.runtime.enter import enter
    from runner.runtime.privileges import probe

    options = call.options
    try:
        pidfd = found.pidfd()
    except ContainerNotFound:
        raise Conflict(f"cannot exec in container {found.id}: it is stopped") from None
    try:
        running = enter(
            pidfd, process, privileges=probe(), seccomp=spec.seccomp, container_id=found.id, watcher=watcher,
            subgroup=options.text("cgroup"), listener=notify(spec.seccomp, found), trace=call.trace,
        )  # fmt: skip
    finally:
        os.close(pidfd)
    try:
        for warning in running.warnings:
            call.warn(warning)
        console, pidfd_socket = options.text("console-socket"), options.text("pidfd-socket")
        hand_over_all(running, console=console, pidfd=pidfd_socket, pid_file=options.text("pid-file"))
    except BaseException:
        running.close()
        raise
    return running


def wanted_process(own: Process, options: Options, args: tuple[str, ...]) -> Process:
    """The process of --process, or the container's own with what the options change. Raises InvalidInput."""
    _check(options)
    if options.text("process"):
        from runner.runtime.bundle import read_file
        from runner.runtime.config_json import decode_process

        return decode_process(read_file(options.text("process")))
    if not args:
        raise InvalidInput("exec needs a command, or --process")
    sets = own.capabilities
    from runner.runtime import capabilities

    added = tuple(capabilities.choose(add=options.every("cap"), drop=("ALL",)))
    if added:
        sets = replace(
            sets,
            bounding=_with(sets.bounding, added),
            effective=_with(sets.effective, added),
            permitted=_with(sets.permitted, added),
        )
    return replace(
        own,
        args=args,
        env=own.env + options.every("env"),
        cwd=options.text("cwd") or own.cwd,
        terminal=options.flag("tty"),
        console_size=None,
        user=_user(own, options),
        capabilities=sets,
        no_new_privileges=own.no_new_privileges or options.flag("no-new-privs"),
    )


def _check(options: Options) -> None:
    """What would be dropped, or could be no variable. Raises InvalidInput."""
    for name in ("apparmor", "process-label"):
        if options.text(name) not in ("", "unconfined"):
            raise InvalidInput(f"--{name} is not supported by this runtime")
    if options.text("cwd") and not options.text("cwd").startswith("/"):
        raise InvalidInput(f"--cwd {options.text('cwd')!r} is not an absolute path")
    for entry in options.every("env"):
        if entry.find("=") < 1:
            raise InvalidInput(f"--env {entry!r} is not NAME=VALUE")


def _with(names: tuple[str, ...], added: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *added)))


def _user(own: Process, options: Options) -> User:
    from runner.runtime.spec import User

    user = own.user if isinstance(own.user, User) else User()
    numbers = [*options.text("user").split(":"), *options.every("additional-gids")]
    for text in numbers:
        if text and not text.isdigit():
            raise InvalidInput(f"{text!r} is not a number: --user takes UID[:GID], --additional-gids a GID")
    if options.text("user"):
        uid, _, gid = options.text("user").partition(":")
        user = replace(user, uid=int(uid or 0), gid=int(gid) if gid else user.gid)
    if options.every("additional-gids"):
        user = replace(user, additional_gids=tuple(int(text) for text in options.every("additional-gids")))
    return user
