"""The processes of a container, by its control groups, and what the ps program says of them."""

from __future__ import annotations

import os
from contextlib import suppress

from image.errors import InvalidInput, TierceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


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


def listed(pids: Collection[int], arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The header that ``ps`` with these arguments prints, and its lines for ``pids``.

    Raises InvalidInput for wrong arguments, and for those that show no PID; TierceError without ps.
    """
    import subprocess

    command = ["ps", *(arguments or ("-ef",))]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError as error:
        raise TierceError(f"cannot run ps: {(error.strerror or '').lower()} (is procps installed?)") from error
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        raise InvalidInput(f"{' '.join(command)}: {said or 'it failed'}")
    header, *lines = done.stdout.splitlines()
    if "PID" not in header.split():
        raise InvalidInput("cannot find the column PID in what ps prints")
    column = header.split().index("PID")
    wanted = set(map(str, pids))
    return header, [line for line in lines if line.split()[column] in wanted]
