"""``logs`` and ``attach``."""

from __future__ import annotations

import sys
from itertools import groupby
from operator import itemgetter

from image.errors import InvalidInput
from tierce.cli.chosen import latest_option, name_argument, single
from tierce.cli.command import Settings, binary
from tierce.cli.containers import containers, follow
from tierce.cli.declare import Ended, command, option
from tierce.cli.units import parse_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.log_reader import Block


@command(
    "logs",
    short_help="Show what a container has written",
    examples="""
tierce logs web
tierce logs -f --tail 20 web
tierce logs --since 10m -t web
""",
)
@name_argument
@latest_option
@option("-f", "--follow", "more", is_flag=True, help="Go on until it ends")
@option("-n", "--tail", default="all", metavar="N", help="Only the last N lines")
@option("-t", "--timestamps", is_flag=True, help="With the time of each line")
@option("--since", default="", metavar="TIME", help="From a time, or a duration ago, on")
@option("--until", default="", metavar="TIME", help="Up to a time, or a duration ago")
@option("--details", is_flag=True, hidden=True)
def logs(
    settings: Settings, word: str, latest: bool, more: bool, tail: str, timestamps: bool, since: str, until: str, details: bool  # noqa: ARG001  (no driver has any)
) -> None:  # fmt: skip
    """Show what a container has written to its standard output and error."""
    from runner.containers.log import timestamp
    from runner.containers.log_reader import LogReader

    if tail != "all" and not tail.lstrip("-").isdigit():
        raise InvalidInput(f"invalid number of lines {tail!r}: want a number, or all")
    count = None if tail == "all" or int(tail) < 0 else int(tail)
    begin = timestamp(_microseconds(since, settings.clock()) * 1000) if since else ""
    end = timestamp(_microseconds(until, settings.clock()) * 1000 + 999) if until else ""
    with containers(settings) as over:
        record = over.records.get(single(over, word, latest=latest))
        if record.made.policy.log_driver == "none":
            raise InvalidInput("configured logging driver does not support reading: it is none")

        def alive() -> bool:
            return over.records.is_watched(record.id)

        reader = LogReader(over.records.log(record))
        for block in reader.read(tail=count, since=begin, follow=alive if more else None):
            _show([line for line in block if begin <= line["time"]] if begin else block, end, timestamps=timestamps)
            if end and block[-1]["time"] > end:
                break


def _microseconds(text: str, now_s: float) -> int:
    """A user's time, as exact as such times are read."""
    return round(parse_until(text, now_s, what="time ") * 10**6)


def _show(block: Block, end: str, *, timestamps: bool) -> None:
    """Write lines up to ``end`` to the stream that each came from; runs of one stream by one call."""
    if end:
        block = [line for line in block if line["time"] <= end]
    for stream, run in groupby(block, key=itemgetter("stream")):
        target = binary(sys.stdout if stream == "stdout" else sys.stderr)
        target.write("".join([f"{line['time']} {line['log']}" if timestamps else line["log"] for line in run]).encode())
        target.flush()


@command("attach", short_help="Attach to a running container", examples="tierce attach web")
@name_argument
@latest_option
@option("--no-stdin", is_flag=True, help="Do not pass standard input on")
@option("--detach-keys", default="", metavar="KEYS", help="Keys that leave it running  [ctrl-p,ctrl-q]")
@option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on  [on]")
def attach(settings: Settings, word: str, latest: bool, no_stdin: bool, detach_keys: str, sig_proxy: bool) -> None:
    """Follow a running container's output, and pass input and signals on; exit with its exit code."""
    from runner.containers import wire

    with containers(settings) as over:
        record = over.records.running(single(over, word, latest=latest))
        if record.state.status == "paused":
            raise InvalidInput("you cannot attach to a paused container, unpause it first")
        connection = over.connect(record)
        over.tell(record, "attach")
        connection.sendall(wire.frame(wire.ATTACH))
        code = follow(
            connection, over, record, attached=True, interactive=record.made.options.interactive and not no_stdin,
            keys=detach_keys, proxy=sig_proxy, wait_for_start=False,
        )  # fmt: skip
    raise Ended(code)
