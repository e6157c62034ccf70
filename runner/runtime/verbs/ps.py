"""``ps``: the processes of a container, by number or through the ps program."""

from __future__ import annotations

import json

from image.errors import InvalidInput
from runner.runtime import processes
from runner.runtime.call import Call, say


def run(call: Call) -> int:
    form = call.options.text("format", "table")
    pids = processes.pids(call.container().groups)
    if form == "json":
        say(1, json.dumps(pids) + "\n")
        return 0
    if form != "table":
        raise InvalidInput(f"--format {form!r} is not table or json")
    header, lines = processes.listed(pids, call.arguments.operands[1:])
    say(1, "".join(f"{line}\n" for line in (header, *lines)))
    return 0
