"""The life of containers: ``start``, ``stop``, ``kill``, ``restart``, ``wait``, ``rm``, ``rename``, ``pause``, ``prune``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from image.errors import Cancelled, Conflict, InvalidInput, NotFound, TierceError
from runner.containers import policy as policies
from runner.containers.control import Control
from runner.containers.records import Record, Records, State
from runner.containers.sweep import is_due, sweep
from runner.runtime.state import runtime_directory
from tierce.cli.chosen import choose, choosing, latest_option, name_argument, names_argument, several, single
from tierce.cli.command import Settings, confirm
from tierce.cli.declare import Ended, argument, command, option
from tierce.cli.filters import filter_option, parse_filters, passes_labels
from tierce.cli.output import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from runner.containers.attach import UserStdio


@contextmanager
def containers(settings: Settings) -> Iterator[Control]:
    """What every command here works with, after killed processes were cleaned up after."""
    with settings.store() as store:
        over = control(settings, Records(store, clock=settings.clock))
        if is_due(over.root):
            from runner.runtime.privileges import probe

            sweep(over.root, probe().cgroups)
        yield over


def control(settings: Settings, records: Records) -> Control:
    return Control(records, runtime_directory(settings.environ, os.geteuid()))


def each(words: Sequence[str], act: Callable[[str], str | None]) -> None:
    """Do it for every word and print what it gives; complain of those that fail, and exit with 1."""
    failed = False
    for word in words:
        try:
            done = act(word)
        except TierceError as error:
            failed = True
            echo(f"tierce: {error}", err=True)
        else:
            if done is not None:
                echo(done)
    if failed:
        raise Ended(1)


def exit_unless_found(look: Callable[[], object]) -> None:
    """For ``exists``: exit with 1 where looking finds nothing."""
    try:
        look()
    except NotFound:
        raise Ended(1) from None


def follow(
    connection: socket.socket,
    over: Control,
    record: Record,
    *,
    attached: bool,
    interactive: bool = False,
    keys: str = "",
    proxy: bool = True,
    started: Callable[[], None] = lambda: None,
    wait_for_start: bool = True,
    user: UserStdio | None = None,
) -> int:
    """See a container through its start, then, ``attached``, to its end. Its exit code; 0 when it is left running."""
    from runner.containers.attach import OWN_STDIO
    from runner.containers.follow import DEFAULT_KEYS, Detached, Follower, parse_keys

    with connection:
        follower = Follower(
            connection, interactive=interactive, tty=record.made.options.tty, keys=parse_keys(keys or DEFAULT_KEYS),
            user=user or OWN_STDIO,
        )  # fmt: skip
        if wait_for_start:
            follower.wait_for_start()
        for line in follower.warnings:
            echo(f"WARNING: {line}", err=True)
        if not attached:
            started()
            return 0
        try:
            code = follower.run(proxy=proxy, started=started)
        except Detached:
            echo("read escape sequence", err=True)
            return 0
    if code is None:  # the monitor was killed, and the container with it
        code = over.wait(over.records.get(record.id))
    elif record.made.policy.restart == "no":
        over.settle(record)
    return code


# --- the verbs ------------------------------------------------------------------------------


@command(
    "start", short_help="Start one or more stopped containers", examples="tierce start web\ntierce start -ai shell"
)
@choosing("l", "f")
@option("-a", "--attach", is_flag=True, help="Follow its output, and exit with its exit code")
@option("-i", "--interactive", is_flag=True, help="Pass standard input on")
@option("--detach-keys", default="", metavar="KEYS", help="Keys that leave it running  [ctrl-p,ctrl-q]")
@option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on  [on]")
def start(
    settings: Settings, /, attach: bool, interactive: bool, detach_keys: str, sig_proxy: bool, **choice: Any
) -> None:
    """Start containers that were created, or have ended."""
    attached = attach or interactive
    with containers(settings) as over:
        words = choose(over, choice, lambda state: not _is_up(state))
        if attached and len(words) > 1:
            raise InvalidInput("you cannot start and attach multiple containers at once")
        code = 0

        def act(word: str) -> str | None:
            nonlocal code
            record = over.records.get(word)
            if record.state.is_running:
                return word
            if record.state.status == "restarting":
                over.stop(record, timeout_s=0)
                record = over.records.get(word)
            code = follow(
                over.start(record, attached=attached), over, record, attached=attached, interactive=interactive,
                keys=detach_keys, proxy=sig_proxy,
            )  # fmt: skip
            return None if attached else word

        each(words, act)
    raise Ended(code)


def _any(_: State) -> bool:
    return True


def _is_up(state: State) -> bool:
    """Whether there is something to stop."""
    return state.is_running or state.status == "restarting"


def _on_each(
    settings: Settings, choice: Mapping[str, Any], act: Callable[[Control, Record], object],
    fitting: Callable[[State], bool],
) -> None:  # fmt: skip
    """Act on every container, print how the user named it, or its id, and go on after failures."""
    with containers(settings) as over:

        def done(word: str) -> str:
            act(over, over.records.get(word))
            return word

        each(choose(over, choice, fitting), done)


_timeout = option("-t", "--time", "--timeout", "timeout", type=int, metavar="SECONDS", help="Seconds until KILL")
_signal = option("-s", "--signal", "name", default="", metavar="SIGNAL", help="Signal to send")


@command("stop", short_help="Stop one or more running containers", examples="tierce stop web\ntierce stop -t 2 web db")
@choosing("a", "l", "f")
@_timeout
@_signal
def stop(settings: Settings, /, timeout: int | None, name: str, **choice: Any) -> None:
    """Send the stop signal, wait, and kill what has not ended."""
    _on_each(settings, choice, lambda o, r: o.stop(r, timeout_s=timeout, signal_name=name), _is_up)


@command("restart", short_help="Restart one or more containers", examples="tierce restart web")
@choosing("a", "l", "f")
@option("--running", is_flag=True, help="All that run")
@_timeout
@_signal
def restart(settings: Settings, /, timeout: int | None, name: str, running: bool, **choice: Any) -> None:
    """Stop containers and start them again."""

    def act(over: Control, record: Record) -> None:
        over.stop(record, timeout_s=timeout, signal_name=name)
        again = over.records.get(record.id)
        follow(over.start(again, attached=False), over, again, attached=False)
        over.tell(again, "restart")

    choice["everything"] = choice["everything"] or running
    _on_each(settings, choice, act, _is_up if running else _any)


@command("kill", short_help="Kill one or more running containers", examples="tierce kill -s HUP web")
@choosing("a", "l")
@option("-s", "--signal", "name", default="KILL", metavar="SIGNAL", help="Signal to send  [KILL]")
def kill(settings: Settings, /, name: str, **choice: Any) -> None:
    """Send a signal to the first process of containers."""
    number = policies.signal_number(name)
    _on_each(settings, choice, lambda o, r: o.kill(r, number), lambda state: state.is_running)


@command("wait", short_help="Wait until containers stop, then print their exit codes", examples="tierce wait web")
@names_argument
@latest_option
@option(
    "--condition",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="not-running, next-exit, removed, or a state such as running or healthy  [not-running]",
)
@option("-i", "--interval", hidden=True, expose_value=False)
def wait(settings: Settings, words: Sequence[str], latest: bool, conditions: Sequence[str]) -> None:
    """Print the exit code of each container when it has ended, or when one of the conditions holds."""
    from runner.containers.conditions import check_conditions, wait_for

    wanted = [name for word in conditions for name in word.split(",")]
    check_conditions(wanted)
    with containers(settings) as over:
        chosen = several(over, words, latest=latest)
        each(chosen, lambda word: str(wait_for(over, over.records.get(word), wanted)))


@command(
    "exists", short_help="Tell by the exit code whether a container exists", examples="tierce container exists web"
)
@argument("word", metavar="CONTAINER")
@option("--external", is_flag=True, hidden=True, expose_value=False)
def exists(settings: Settings, word: str) -> None:
    """End with 0 when there is such a container, with 1 when there is not."""
    with containers(settings) as over:
        exit_unless_found(lambda: over.records.get(word))


@command("pause", short_help="Freeze all processes of containers", examples="tierce pause web")
@choosing("a", "l", "f")
def pause(settings: Settings, /, **choice: Any) -> None:
    """Freeze all processes of containers."""
    _on_each(settings, choice, lambda o, r: o.pause(r), lambda state: state.status == "running")


@command("unpause", short_help="Thaw paused containers", examples="tierce unpause web")
@choosing("a", "l", "f")
def unpause(settings: Settings, /, **choice: Any) -> None:
    """Let paused containers go on."""
    _on_each(settings, choice, lambda o, r: o.unpause(r), lambda state: state.status == "paused")


@command(
    "port", short_help="List the published ports of a container", examples="tierce port web\ntierce port web 80/tcp"
)
@name_argument
@argument("wanted", required=False, default="", metavar="[PORT[/PROTO]]")
@latest_option
def port(settings: Settings, word: str, wanted: str, latest: bool) -> None:
    """Show where the ports of a running container are published."""
    if latest and not wanted:
        word, wanted = "", word
    with containers(settings) as over:
        word = single(over, word, latest=latest)
        pairs = [text.rpartition("->") for text in over.records.get(word).state.ports]
    if not wanted:
        echo("".join(f"{inner} -> {outer}\n" for outer, _, inner in pairs), nl=False)
        return
    wanted = wanted if "/" in wanted else f"{wanted}/tcp"
    found = [outer for outer, _, inner in pairs if inner == wanted]
    if not found:
        raise NotFound(f"no public port {wanted} published for {word}")
    echo("\n".join(found))


@command("rename", short_help="Rename a container", examples="tierce rename old new")
@argument("word", metavar="CONTAINER")
@argument("name", metavar="NEW_NAME")
def rename(settings: Settings, word: str, name: str) -> None:
    """Give a container another name."""
    policies.check_name(name.removeprefix("/"))
    with containers(settings) as over:
        record = over.records.get(word)
        over.records.rows.rename(record.id, name.removeprefix("/"))
        over.tell(over.records.get(record.id), "rename", oldName=f"/{record.name}")


@command("rm", short_help="Remove one or more containers", examples="tierce rm web\ntierce rm -fv $(tierce ps -aq)")
@choosing("a")
@option("-f", "--force", is_flag=True, help="Kill those that run; what is absent is no error")
@option("-v", "--volumes", is_flag=True, help="Their anonymous volumes too")
@option("-l", "--link", is_flag=True, hidden=True)
def rm(settings: Settings, /, force: bool, volumes: bool, link: bool, **choice: Any) -> None:
    """Remove containers, with all that they wrote outside volumes."""
    if link:
        raise InvalidInput("--link is not supported: there are no links")

    def act(word: str) -> str | None:
        try:
            remove_one(over, over.records.get(word), force=force, volumes=volumes)
        except NotFound:
            if not force:
                raise
        return word

    with containers(settings) as over:
        each(choose(over, choice, _any), act)


def remove_one(over: Control, record: Record, *, force: bool, volumes: bool) -> None:
    """Raises Conflict for a running one without ``force``."""
    from runner.containers.remove import remove

    if (record.state.is_running or record.state.status == "restarting") and not force:
        raise Conflict(
            f"cannot remove container {record.name}: container is {record.state.status}: "
            "stop the container before removing or force remove"
        )
    if record.state.is_running:
        over.kill(record, 9)
    elif force:
        over.stop(record, timeout_s=0)  # it may start again
    over.settle(record)
    remove(over.records, record, volumes=volumes)


@command("prune", short_help="Remove all stopped containers", examples="tierce container prune -f --filter until=24h")
@option("-f", "--force", is_flag=True, help="Do not ask")
@filter_option("until=TIME, label=KEY[=VALUE]")
def prune(settings: Settings, force: bool, filters: Sequence[str]) -> None:
    """Remove all containers that do not run."""
    from tierce.cli.units import parse_until

    wanted = parse_filters(filters, ("until", "label", "label!"))
    limit = min((parse_until(text, settings.clock()) for text in wanted.get("until", ())), default=None)
    if not force and not confirm(
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?"
    ):
        raise Cancelled("container prune has been cancelled")
    from tierce.prune import prune_containers

    with containers(settings) as over:
        gone, freed = prune_containers(
            over.records,
            lambda record: passes_labels(record.labels, wanted) and (limit is None or record.created_s < limit),
        )
    from tierce.cli.units import human_size

    if gone:
        echo("Deleted Containers:\n" + "".join(f"{each}\n" for each in gone))
    echo(f"Total reclaimed space: {human_size(freed)}")
