"""``exec``: one more process in a container that runs."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from image.errors import Conflict, ContainerNotFound, InvalidInput
from runner.runtime import capabilities
from runner.runtime.arguments import Options
from runner.runtime.bundle import (
    check_console,
    hand_over_all,
    notify,
    own_stdio,
    preserved,
    read_file,
    stored_spec,
)
from runner.runtime.call import Call
from runner.runtime.config_json import decode_process
from runner.runtime.enter import enter
from runner.runtime.privileges import probe
from runner.runtime.running import Stdio
from runner.runtime.spec import Process, User


def run(call: Call) -> int:
    found, options = call.container(), call.options
    status = found.status
    if status == "stopped":
        raise Conflict(f"cannot exec in container {found.id}: it is stopped")
    if status == "paused" and not options.flag("ignore-paused"):
        raise Conflict(f"cannot exec in container {found.id}: it is paused")
    spec = stored_spec(found)
    detached = options.flag("detach")
    extra, environment = preserved(options.number("preserve-fds") or 0)
    process = wanted_process(spec.process, options, call.arguments.operands[1:])
    process = replace(process, env=process.env + environment)
    console = options.text("console-socket")
    check_console(terminal=process.terminal, console=console, detached=detached)
    with ExitStack() as held:
        signals = None
        if not detached:
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
            stdio=Stdio(extra=extra) if process.terminal else own_stdio(extra),
            subgroup=options.text("cgroup"),
            detached=detached,
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
        return decode_process(read_file(Path(options.text("process"))))
    if not args:
        raise InvalidInput("exec needs a command, or --process")
    sets = own.capabilities
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
