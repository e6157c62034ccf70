"""``list``: the containers of this root."""

from __future__ import annotations

import json

from image.errors import InvalidInput
from runner.runtime import record
from runner.runtime.call import Call, say
from runner.runtime.verbs.state import describe

_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def run(call: Call) -> int:
    form = call.options.text("format", "table")
    found = [describe(each) for each in record.every(call.root)]
    if call.options.flag("quiet"):
        say(1, "".join(f"{each['id']}\n" for each in found))
    elif form == "json":
        say(1, json.dumps(found) + "\n")
    elif form == "table":
        rows = [[name.upper() for name in _COLUMNS], *([str(each[name]) for name in _COLUMNS] for each in found)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
        say(1, "".join(_line(row, widths) for row in rows))
    else:
        raise InvalidInput(f"--format {form!r} is not table or json")
    return 0


def _line(row: list[str], widths: list[int]) -> str:
    return "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n"
