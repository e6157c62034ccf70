"""What containers use, and may use: ``stats``, ``top``, ``update``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from image.errors import InvalidInput, NotFound
from runner.containers.control import Control
from runner.containers.records import Record
from tierce.cli.chosen import first_and_rest, latest_option, several, single
from tierce.cli.command import Settings, format_option
from tierce.cli.containers import containers, each
from tierce.cli.declare import RAW, argument, command, option
from tierce.cli.output import echo
from tierce.cli.run_flags import limit_flags, read_changeable
from tierce.cli.tables import align, render
from tierce.cli.terminal import LiveBlock, is_live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from runner.containers.statistics import Sample

_HEADERS: Final = {
    "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
_COLUMNS: Final = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_INTERVAL_S: Final = 1.0


@command(
    "top",
    loose=True,
    interspersed=False,
    short_help="List the processes of a container",
    examples="tierce top web\ntierce top web -o pid,rss,args",
)
@argument("words", nargs=-1, type=RAW, metavar="CONTAINER [PS OPTIONS]")
@latest_option
def top(settings: Settings, words: Sequence[str], latest: bool) -> None:
    """List the processes of a container as this machine's ps sees them, with -ef unless told otherwise."""
    from runner.containers.members import members
    from runner.runtime.processes import listed

    with containers(settings) as over:
        word, arguments = first_and_rest(words, latest=latest)
        record = over.records.running(single(over, word, latest=latest))
        over.tell(record, "top")
        header, lines = listed(members(record.state.pid, over.groups(record)), arguments)
    width = len(header.split())
    rows = [line.split(None, width - 1) for line in (header, *lines)]
    echo(align(rows), nl=False)


@command(
    "stats",
    short_help="Show what containers use, again and again",
    examples="""
tierce stats
tierce stats --no-stream web db
tierce stats --no-stream --format '{{.Name}}: {{.CPUPerc}} {{.MemUsage}}'
""",
)
@argument("words", nargs=-1, metavar="[CONTAINER...]")
@option("-a", "--all", "everything", is_flag=True, help="Those that do not run too")
@latest_option
@option("--no-stream", is_flag=True, help="Once, after a second")
@option("--no-trunc", is_flag=True, help="Whole ids")
@format_option
def stats(
    settings: Settings, words: Sequence[str], everything: bool, latest: bool, no_stream: bool, no_trunc: bool, form: str
) -> None:
    """Show processor time, memory, network and disk traffic of running containers, every second.

    Processor time is that of the last second, 100 % for each processor.
    """
    with containers(settings) as over:
        words = several(over, words, latest=True) if latest else words
        chosen = _chosen(over, words, everything=everything)
        before = _samples(over, chosen)
        with LiveBlock(sys.stdout) as block:
            while True:
                time.sleep(_INTERVAL_S)
                chosen = _chosen(over, words, everything=everything, again=True)
                after = _samples(over, chosen)
                rows = [_row(word, record, before, after, whole=no_trunc) for word, record in chosen]
                text = render(rows, _HEADERS, _COLUMNS, form)
                if not no_stream and is_live(sys.stdout, settings.environ) and form in ("", "table"):
                    block.draw(text.splitlines())
                else:
                    echo(text, nl=False)
                if no_stream:
                    return
                sys.stdout.flush()
                before = after


def _chosen(over: Control, words: Sequence[str], *, everything: bool, again: bool = False) -> list[tuple[str, Record]]:
    """How each is named, and its record. A named one that is gone is an error at first, and left out later."""
    if not words:
        records = over.records.all()
        return [(record.id[:12], record) for record in records if everything or record.state.is_running]
    found = []
    for word in words:
        with suppress(*((NotFound,) if again else ())):
            found.append((word, over.records.get(word)))
    return found


def _samples(over: Control, chosen: Sequence[tuple[str, Record]]) -> dict[str, Sample]:
    """By id; of those that run."""
    from runner.containers.statistics import sample

    found = {}
    for _, record in chosen:
        if record.state.is_running:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                found[record.id] = sample(record.state.pid, over.groups(record))
    return found


def _row(
    word: str, record: Record, before: Mapping[str, Sample], after: Mapping[str, Sample], *, whole: bool
) -> dict[str, str]:
    from tierce.cli.units import binary_size, human_size

    row = {"Container": word, "ID": record.id if whole else record.id[:12], "Name": record.name}
    now = after.get(record.id)
    if now is None:
        pairs = dict.fromkeys(("MemUsage", "NetIO", "BlockIO"), "-- / --")
        return row | pairs | dict.fromkeys(("CPUPerc", "MemPerc", "PIDs"), "--")
    from runner.containers.statistics import cpu_percent

    return row | {
        "CPUPerc": f"{cpu_percent(before.get(record.id, now), now):.2f}%",
        "MemUsage": f"{binary_size(now.memory)} / {binary_size(now.memory_limit)}",
        "MemPerc": f"{100 * now.memory / now.memory_limit:.2f}%",
        "NetIO": f"{human_size(now.received)} / {human_size(now.sent)}",
        "BlockIO": f"{human_size(now.read)} / {human_size(now.written)}",
        "PIDs": str(now.pids),
    }


@command(
    "update",
    short_help="Change the limits and the restart policy of containers",
    examples="""
tierce update -m 512m --cpus 1.5 web
tierce update --restart unless-stopped web db
tierce update --pids-limit -1 web
""",
)
@argument("words", nargs=-1, required=True, metavar="CONTAINER [CONTAINER...]")
@limit_flags
@option("--restart", default="", metavar="POLICY", help="no, always, unless-stopped, on-failure[:N]")
def update(settings: Settings, /, words: Sequence[str], restart: str, **flags: Any) -> None:
    """Change what containers may use, while they run and for their next start."""
    from runner.containers.limits import Limits
    from runner.containers.updating import Changes
    from runner.containers.updating import update as update_container

    changes = Changes(read_changeable(flags), restart)
    if changes == Changes(Limits()):
        raise InvalidInput("nothing to update: give a limit or --restart (see tierce update --help)")
    with containers(settings) as over:

        def act(word: str) -> str:
            update_container(over, over.records.get(word), changes)
            return word

        each(words, act)
