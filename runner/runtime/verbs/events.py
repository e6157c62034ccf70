"""``events``: what a container uses, again and again or once, and when it runs out of memory. JSON lines."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, suppress

from image.errors import Conflict, ContainerNotFound, InvalidInput
from runner.runtime.call import Call, say
from runner.runtime.record import Record
from runner.runtime.usage import oom_kills, usage
from store.linux import descriptors

_LOOK_S = 0.2
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def run(call: Call) -> int:
    found = call.container()
    if found.status == "stopped":
        raise Conflict(f"cannot watch container {found.id}: it is stopped")
    if call.options.flag("stats"):
        _tell(found, "stats", usage(found.groups))
        return 0
    interval_s = parse_interval(call.options.text("interval", "5s"))
    with ExitStack() as held, suppress(ContainerNotFound):
        pidfd = found.pidfd()
        held.callback(os.close, pidfd)
        _follow(found, pidfd, interval_s)
    return 0


def _follow(found: Record, pidfd: int, interval_s: float) -> None:
    """Until the container ends. Its groups are asked for kills, which both versions of them count."""
    killed = oom_kills(found.groups)
    due = time.monotonic() + interval_s
    ended = False
    while not ended:
        wait_s = max(0.0, min(_LOOK_S, due - time.monotonic()))
        ended = bool(descriptors.poll({pidfd: descriptors.POLLIN}, int(wait_s * 1000) + 1))
        now = oom_kills(found.groups)
        if now > killed:
            _tell(found, "oom", None)
        killed = max(now, killed)
        if not ended and time.monotonic() >= due:
            _tell(found, "stats", usage(found.groups))
            due += interval_s


def parse_interval(text: str) -> float:
    """Go's durations of one unit, such as 500ms, 5s and 1m. Raises InvalidInput."""
    number = text.rstrip("msh")
    try:
        seconds = float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        raise InvalidInput(f"--interval {text!r} is not a duration such as 5s") from None
    if seconds <= 0:
        raise InvalidInput("--interval must be greater than zero")
    return seconds


def _tell(found: Record, kind: str, data: object) -> None:
    say(1, json.dumps({"type": kind, "id": found.id} | ({} if data is None else {"data": data})) + "\n")
