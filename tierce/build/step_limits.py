"""What ``tierce build`` lets every RUN have: host names, memory, processors, limits.

None of it makes another step: it changes how a step runs, not what it does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from image.errors import InvalidInput
from image.value import dataclass

_ULIMIT: Final = re.compile(r"([a-z]+)=(-?\d+)(?::(-?\d+))?\Z")
_ULIMITS: Final = frozenset(
    [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
_UNLIMITED: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Bytes, microseconds, weights; None leaves the default. ``ulimits`` are ``(RLIMIT_name, soft, hard)``."""

    hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    memory: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()


def parse_hosts(words: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """``--add-host NAME:ADDRESS`` (or ``NAME=ADDRESS``). Raises InvalidInput."""
    found: list[tuple[str, str]] = []
    for word in words:
        name, separator, address = word.partition("=") if "=" in word else word.partition(":")
        address = address.removeprefix("[").removesuffix("]")
        if not separator or not name or (address != "host-gateway" and not _is_address(address)):
            raise InvalidInput(f"bad format for add-host: {word!r}: want NAME:ADDRESS or NAME:host-gateway")
        found.append((name, address))
    return tuple(found)


def parse_ulimits(words: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    """``--ulimit NAME=SOFT[:HARD]``; -1 is no limit. Raises InvalidInput."""
    found: list[tuple[str, int, int]] = []
    for word in words:
        match = _ULIMIT.match(word)
        if match is None or match[1] not in _ULIMITS:
            raise InvalidInput(
                f"invalid ulimit {word!r}: want NAME=SOFT[:HARD] with one of {', '.join(sorted(_ULIMITS))}"
            )
        soft, hard = int(match[2]), int(match[3] or match[2])
        if hard != -1 and (soft > hard or soft == -1):
            raise InvalidInput(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        found.append((f"RLIMIT_{match[1].upper()}", _limit(soft), _limit(hard)))
    return tuple(found)


def _limit(value: int) -> int:
    return _UNLIMITED if value < 0 else value


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
