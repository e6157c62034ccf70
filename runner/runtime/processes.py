"""The processes of a container, by its control groups."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress


def pids(groups: Sequence[str]) -> tuple[int, ...]:
    """Of the group and those below it, of the first hierarchy that has the container; in order."""
    for group in groups:
        found: set[int] = set()
        for directory, _, _ in os.walk(group):
            with suppress(OSError), open(f"{directory}/cgroup.procs") as file:
                found.update(int(line) for line in file)
        if found:
            return tuple(sorted(found))
    return ()


def signal_all(groups: Sequence[str], number: int) -> None:
    """Every process, those too that appear meanwhile: again until no new one is seen."""
    told: set[int] = set()
    while new := set(pids(groups)) - told:
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= new
