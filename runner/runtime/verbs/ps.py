"""``ps``: the processes of a container, by number or through the ps program."""

from __future__ import annotations

import json
import subprocess

from image.errors import InvalidInput, TierceError
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
    command = ["ps", *(call.arguments.operands[1:] or ("-ef",))]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TierceError(f"cannot run ps: {error.strerror} (is procps installed?)") from error
    if done.returncode:
        raise InvalidInput(f"{' '.join(command)}: {done.stderr.strip()}")
    header, *lines = done.stdout.splitlines()
    if "PID" not in header.split():
        raise InvalidInput("cannot find the column PID in what ps prints")
    column = header.split().index("PID")
    kept = (line for line in lines if line.split()[column] in map(str, pids))
    say(1, "".join(f"{line}\n" for line in (header, *kept)))
    return 0
