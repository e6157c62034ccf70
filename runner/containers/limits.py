"""What a container may use: docker's flags → cgroup limits and rlimits. Pure.

Source: moby 28 ``daemon/daemon_unix.go`` (verifyPlatformContainerResources), docker/go-units ``ulimit.go``.
"""

from __future__ import annotations

from collections.abc import Iterable

from image.errors import InvalidInput
from image.value import dataclass
from runner.runtime.spec import Resources, Rlimit, Throttle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CPU_PERIOD_US: Final = 100_000
_LEAST_MEMORY: Final = 6 << 20
_UNLIMITED: Final = 2**64 - 1
_ULIMITS: Final = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """As the user wrote them; None or empty where nothing was said.

    Memory in bytes (``memory_swap`` counts memory and swap together, -1 is no limit), ``cpus``
    in processors, ``cpu_period_us`` and ``cpu_quota_us`` in microseconds.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpu_period_us: int | None = None
    cpu_quota_us: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int | None = None
    throttles: tuple[Throttle, ...] = ()
    ulimits: tuple[Rlimit, ...] = ()


def resources(limits: Limits, *, processors: int = 0) -> Resources:
    """Docker's reading of the limits; ``processors`` of this machine bound ``cpus``. Raises InvalidInput."""
    _check_memory(limits)
    period, quota = _cpu_time(limits, processors)
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidInput(f"invalid --blkio-weight {limits.blkio_weight}: the range is from 10 to 1000")
    swap = limits.memory_swap or None
    return Resources(
        memory_limit=limits.memory or None,
        memory_reservation=limits.memory_reservation or None,
        memory_swap=2 * limits.memory if swap is None and limits.memory else swap,
        memory_swappiness=None if limits.memory_swappiness == -1 else limits.memory_swappiness,
        oom_kill_disable=limits.oom_kill_disable,
        cpu_shares=limits.cpu_shares or None,
        cpu_period_us=period,
        cpu_quota_us=quota,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        pids_limit=limits.pids_limit or None,
        blkio_weight=limits.blkio_weight or None,
        throttles=limits.throttles,
    )


def _check_memory(limits: Limits) -> None:
    memory, swap, reservation = limits.memory or 0, limits.memory_swap or 0, limits.memory_reservation or 0
    if memory and memory < _LEAST_MEMORY:
        raise InvalidInput(f"memory limit of {memory} bytes is too small: at least 6 MiB")
    if swap > 0 and not memory:
        raise InvalidInput("--memory-swap counts memory and swap together: give --memory too")
    if 0 < swap < memory:
        raise InvalidInput("--memory-swap counts memory and swap together: it can't be less than --memory")
    if reservation and reservation < _LEAST_MEMORY:
        raise InvalidInput(f"memory reservation of {reservation} bytes is too small: at least 6 MiB")
    if memory and reservation > memory:
        raise InvalidInput("--memory-reservation can't be more than --memory")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise InvalidInput(f"invalid --memory-swappiness {limits.memory_swappiness}: the range is from 0 to 100")
    if limits.oom_score_adj is not None and not -1000 <= limits.oom_score_adj <= 1000:
        raise InvalidInput(f"invalid --oom-score-adj {limits.oom_score_adj}: the range is from -1000 to 1000")


def _cpu_time(limits: Limits, processors: int) -> tuple[int | None, int | None]:
    """Period and quota in microseconds."""
    period, quota = limits.cpu_period_us or None, limits.cpu_quota_us or None
    if limits.cpus:
        if period or quota:
            raise InvalidInput("conflicting options: --cpus and --cpu-period or --cpu-quota cannot both be set")
        if limits.cpus < 0.01 or (processors and limits.cpus > processors):
            raise InvalidInput(
                f"invalid --cpus {limits.cpus}: the range is from 0.01 to {processors or 'what is there'}"
            )
        return CPU_PERIOD_US, round(limits.cpus * CPU_PERIOD_US)
    if period is not None and not 1000 <= period <= 1_000_000:
        raise InvalidInput(f"invalid --cpu-period {period}: the range is from 1000 to 1000000 microseconds")
    if quota is not None and 0 < quota < 1000:
        raise InvalidInput(f"invalid --cpu-quota {quota}: at least 1000 microseconds")
    return period, quota


def parse_ulimit(text: str) -> Rlimit:
    """``TYPE=SOFT[:HARD]``; -1 is no limit. What the kernel refuses then is an error. Raises InvalidInput."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"invalid ulimit argument: {text!r}, want TYPE=SOFT[:HARD]")
    if name not in _ULIMITS:
        raise InvalidInput(f"invalid ulimit type {name!r}: there are {', '.join(_ULIMITS)}")
    soft_text, colon, hard_text = value.partition(":")
    soft = _ulimit_number(soft_text, text)
    hard = _ulimit_number(hard_text, text) if colon else soft
    if soft > hard:
        raise InvalidInput(f"invalid ulimit {text!r}: the soft limit can't be more than the hard limit")
    return Rlimit(f"RLIMIT_{name.upper()}", soft, hard, required=True)


def last_of_each(ulimits: Iterable[Rlimit]) -> tuple[Rlimit, ...]:
    """The last word on each type counts."""
    return tuple({limit.type: limit for limit in ulimits}.values())


def _ulimit_number(text: str, whole: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise InvalidInput(f"invalid ulimit argument: {whole!r}: {text!r} is not a number") from None
    if number < -1:
        raise InvalidInput(f"invalid ulimit argument: {whole!r}: {text} is negative")
    return _UNLIMITED if number == -1 else number
