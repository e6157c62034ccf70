"""``exec``: one more process in a container that runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

from image.errors import InvalidInput, TierceError
from image.value import replace
from tierce.cli.chosen import first_and_rest, latest_option, single
from tierce.cli.command import ExitCode, Settings
from tierce.cli.declare import RAW, Ended, WrongUsage, argument, command, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runner.containers.control import Control
    from runner.containers.records import Record, Records
    from runner.runtime.running import Running
    from runner.runtime.spawn import Watcher


@command(
    "exec",
    short_help="Run a command in a running container",
    interspersed=False,
    examples="""
tierce exec web ls /srv
tierce exec -it web sh
tierce exec -u nobody -w /tmp -e A=1 web env
""",
)
@argument("words", nargs=-1, type=RAW, metavar="CONTAINER COMMAND [ARG...]")
@latest_option
@option("-i", "--interactive", is_flag=True, help="Pass standard input on")
@option("-t", "--tty", is_flag=True, help="Give it a terminal")
@option("-d", "--detach", is_flag=True, help="Let it run in the background")
@option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable")
@option("--env-file", "env_files", multiple=True, metavar="FILE", help="Set the variables of a file")
@option("-u", "--user", default="", metavar="USER[:GROUP]", help="Name or number to run as")
@option("-w", "--workdir", default="", metavar="PATH", help="Working directory")
@option("--privileged", is_flag=True, help="Give all capabilities")
@option("--detach-keys", default="", hidden=True)
def exec_(
    settings: Settings,
    words: Sequence[str],
    latest: bool,
    interactive: bool,
    tty: bool,
    detach: bool,
    env: Sequence[str],
    env_files: Sequence[str],
    user: str,
    workdir: str,
    privileged: bool,
    detach_keys: str,  # noqa: ARG001  (an exec ends with its client)
) -> None:
    """Run a command in a running container, and exit with its exit code."""
    word, words = first_and_rest(words, latest=latest)
    if not words:
        raise WrongUsage(f"missing argument '{'COMMAND [ARG...]' if word or latest else 'CONTAINER'}'")
    given = {"env": env, "env_files": env_files, "user": user, "workdir": workdir, "tty": tty}
    try:
        with _ahead(wanted=not (tty or detach), interactive=interactive) as watcher:
            from tierce.cli.containers import containers

            with containers(settings) as over:
                record = _wanted(over, single(over, word, latest=latest), words, settings, given)
                code = _told(over, record, watcher, interactive=interactive, detach=detach, privileged=privileged)
    except TierceError as error:
        from runner.containers.start import CLI_FAILED, exit_status

        status = exit_status(error)
        raise ExitCode(1 if status == CLI_FAILED else status, error) from error
    raise Ended(code)


def _ahead(*, wanted: bool, interactive: bool) -> AbstractContextManager[Watcher | None]:
    """The process, which gets ready while this one finds out where it is to go."""
    if not wanted:
        return nullcontext()
    from runner.containers.ready import watcher_ahead

    return watcher_ahead(interactive=interactive) or nullcontext()


def _wanted(over: Control, word: str, words: Sequence[str], settings: Settings, given: Mapping[str, Any]) -> Record:
    """The container's record as if it were made for this process. Raises InvalidInput, ContainerNotFound."""
    from runner.containers.options import given_environment
    from tierce.run import read_env_file

    lines = [line for path in given["env_files"] for line in read_env_file(path)]
    record = over.records.running(word)
    if record.state.status == "paused":
        raise InvalidInput(f"container {word} is paused, unpause the container before exec")
    made = record.made.options
    changed = replace(
        made, args=tuple(words), entrypoint="", tty=given["tty"],
        env=(*made.env, *given_environment((*lines, *given["env"]), settings.environ)),
        user=given["user"] or made.user, workdir=given["workdir"] or made.workdir,
    )  # fmt: skip
    return replace(record, made=replace(record.made, options=changed))


def _told(
    over: Control, record: Record, watcher: Watcher | None, *, interactive: bool, detach: bool, privileged: bool
) -> int:  # fmt: skip
    """Run it, and let those know who follow events."""
    identity, words = os.urandom(32).hex(), " ".join(record.made.options.args)
    for action in ("exec_create", "exec_start"):
        over.tell(record, f"{action}: {words}", execID=identity)
    code = _execute(over.records, record, watcher, interactive=interactive, detach=detach, privileged=privileged)
    if not detach:
        over.tell(record, "exec_die", execID=identity, exitCode=str(code))
    return code


def _execute(
    records: Records, record: Record, watcher: Watcher | None, *, interactive: bool, detach: bool, privileged: bool
) -> int:  # fmt: skip
    from runner.containers.attach import OWN_STDIO, window
    from runner.containers.relay import Relay
    from runner.containers.signals import Signals
    from runner.containers.stdio import container_stdio
    from runner.runtime.spawn import Stdio, spawn

    if record.made.options.tty and interactive and not os.isatty(0):
        raise InvalidInput("the input device is not a TTY")
    with ExitStack() as held:
        pidfd = os.pidfd_open(record.state.pid)
        held.callback(os.close, pidfd)
        relay = Relay()
        stdio = Stdio()
        given = None
        if not detach:
            options = replace(record.made.options, interactive=interactive)
            given = held.enter_context(container_stdio(options, OWN_STDIO, relay))
            stdio = given.container
        signals = None if detach else held.enter_context(Signals())
        if watcher is None or watcher.stdio != stdio:
            watcher = held.enter_context(spawn(stdio, detached=detach, reaped=detach))  # gets ready as we plan
        running = held.enter_context(_enter(records, record, pidfd, watcher, privileged=privileged))
        if detach or given is None or signals is None:
            return 0
        given.close_container_side()
        signals.forward_to(running)
        if running.console is not None:
            held.enter_context(window(running, OWN_STDIO, relay, interactive=interactive))
        relay.run(running, signals)
        return running.wait()


def _enter(records: Records, record: Record, pidfd: int, watcher: Watcher, *, privileged: bool) -> Running:
    """The process that the record's options describe, started."""
    from runner.containers import terminal
    from runner.containers.begin import describe
    from runner.runtime import capabilities
    from runner.runtime.enter import enter
    from runner.runtime.privileges import probe

    spec = describe(records, record)
    process = replace(spec.process, console_size=terminal.size(1, 0) if record.made.options.tty else None)
    if privileged:
        process = replace(process, capabilities=capabilities.granted(capabilities.choose(privileged=True)))
    return enter(
        pidfd, process, privileges=probe(), seccomp=None if privileged else spec.seccomp, container_id=record.id,
        watcher=watcher,
    )  # fmt: skip
