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
    from runner.runtime.spawn import Watcher
    from runner.runtime.spec import Process, User


def run(call: Call) -> int:
    with call.spawn(detached=call.options.flag("detach")) as watcher:  # before the imports below: both take as long
        return _run(call, watcher)


def _run(call: Call, watcher: Watcher) -> int:
    from contextlib import ExitStack

    from runner.runtime.bundle import check_console, hand_over_all, notify, stored_spec
    from runner.runtime.enter import enter
    from runner.runtime.privileges import probe

    found, options = call.container(), call.options
    status = found.status
    if status == "stopped":
        raise Conflict(f"cannot exec in container {found.id}: it is stopped")
    if status == "paused" and not options.flag("ignore-paused"):
        raise Conflict(f"cannot exec in container {found.id}: it is paused")
    spec = stored_spec(found)
    process = wanted_process(spec.process, options, call.arguments.operands[1:])
    process = replace(process, env=process.env + preserved(options)[1])
    console = options.text("console-socket")
    check_console(terminal=process.terminal, console=console, detached=watcher.detached)
    with ExitStack() as held:
        signals = None
        if not watcher.detached:
            from runner.containers.attach import Signals

            signals = held.enter_context(Signals())
        try:
            pidfd = found.pidfd()
        except ContainerNotFound:
            raise Conflict(f"cannot exec in container {found.id}: it is stopped") from None
        held.callback(os.close, pidfd)
        running = enter(
            pidfd,
            process,
            privileges=probe(),
            seccomp=spec.seccomp,
            container_id=found.id,
            watcher=watcher,
            subgroup=options.text("cgroup"),
            listener=notify(spec.seccomp, found),
            trace=call.trace,
        )
        held.enter_context(running)
        for warning in running.warnings:
            call.warn(warning)
        hand_over_all(running, console=console, pidfd=options.text("pidfd-socket"), pid_file=options.text("pid-file"))
        if signals is None:
            return 0
        from runner.runtime.verbs.run import follow

        return follow(running, signals, held)


def wanted_process(own: Process, options: Options, args: tuple[str, ...]) -> Process:
    """The process of --process, or the container's own with what the options change. Raises InvalidInput."""
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
