"""``features``: what this runtime can do, as JSON."""

from __future__ import annotations

import json

from runner.runtime.call import Call, say
from runner.runtime.features import features


def run(_call: Call) -> int:
    say(1, json.dumps(features(), indent=2) + "\n")
    return 0
