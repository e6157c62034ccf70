"""What a running container uses, for ``stats``.

Each value is read from the container's control group of that controller. Where it has none,
which on cgroup v1 is so unless something is limited, it is summed over the processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from image.value import dataclass
from runner.containers.members import members, stat_fields
from runner.runtime.usage import block_io, usage

_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")
_FIRST_TIME: Final = 11
"""Where utime, stime, cutime and cstime begin in ``stat_fields``; the threads are six fields on."""
_THREADS: Final = _FIRST_TIME + 6


@dataclass(frozen=True, slots=True)
class Sample:
    """At ``moment_ns`` of the steady clock. Sizes in bytes; the others count since the container's start."""

    moment_ns: int
    cpu_ns: int
    memory: int
    memory_limit: int
    pids: int
    received: int
    sent: int
    read: int
    written: int


def sample(pid: int, groups: Sequence[str]) -> Sample:
    """``pid`` is the first process, ``groups`` are the control groups. Raises FileNotFoundError when it has ended."""
    found = usage(groups)
    memory, counted = found["memory"], found["pids"]["current"]
    pids = members(pid, groups)
    cache = memory["raw"].get("total_inactive_file", memory["raw"].get("inactive_file", 0))
    cpu_ns, threads = _processors(pids)
    used = memory["usage"]["usage"]
    total = memory_total()
    received, sent = _network(pid)
    read, written = block_io(groups) or _disks(pids)
    return Sample(
        time.monotonic_ns(),
        found["cpu"]["usage"]["total"] or cpu_ns,
        max(0, used - cache) if used else sum(map(_share, pids)),
        min(memory["usage"]["limit"] or total, total),
        counted or threads,
        received,
        sent,
        read,
        written,
    )


def cpu_percent(before: Sample, after: Sample) -> float:
    """100 for one processor that was busy all the time."""
    passed = after.moment_ns - before.moment_ns
    return 100 * max(0, after.cpu_ns - before.cpu_ns) / passed if passed > 0 else 0.0


def memory_total() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processors(pids: Sequence[int]) -> tuple[int, int]:
    """Nanoseconds of processor time, with that of children that have ended; threads."""
    ticks = threads = 0
    for pid in pids:
        with suppress(OSError):
            fields = stat_fields(pid)
            ticks += sum(map(int, fields[_FIRST_TIME : _FIRST_TIME + 4]))
            threads += int(fields[_THREADS])
    return ticks * _TICK_NS, threads


def _share(pid: int) -> int:
    """Bytes of memory, a page that n processes have counted as 1/n."""
    return 1024 * _labelled(f"/proc/{pid}/smaps_rollup").get("Pss", 0)


def _disks(pids: Sequence[int]) -> tuple[int, int]:
    found = [_labelled(f"/proc/{pid}/io") for pid in pids]
    return sum(io.get("read_bytes", 0) for io in found), sum(io.get("write_bytes", 0) for io in found)


def _labelled(path: str) -> dict[str, int]:
    """``Name: number`` lines of a file in /proc; nothing once its process has ended."""
    numbers: dict[str, int] = {}
    with suppress(OSError), open(path) as file:
        for line in file:
            name, _, value = line.partition(":")
            word = value.split()[:1]
            if word and word[0].isdigit():
                numbers[name] = int(word[0])
    return numbers


def _network(pid: int) -> tuple[int, int]:
    """Bytes that came and went by its own interfaces; nothing for one on the host's network."""
    received = sent = 0
    with suppress(OSError):
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return 0, 0
        with open(f"/proc/{pid}/net/dev") as file:
            for line in list(file)[2:]:
                name, _, counters = line.partition(":")
                numbers = counters.split()
                if name.strip() != "lo":
                    received += int(numbers[0])
                    sent += int(numbers[8])
    return received, sent
