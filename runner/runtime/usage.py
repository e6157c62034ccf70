"""What a container uses, read from its control groups of either version, in runc's form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

_NANOSECONDS: Final = 1000


def usage(groups: Sequence[str]) -> dict[str, Any]:
    """CPU times in nanoseconds, memory in bytes; what the kernel does not tell is 0 or absent."""
    memory = _numbers(_find(groups, "memory.stat"))
    return {
        "cpu": _cpu(groups),
        "memory": {
            "cache": memory.get("cache", memory.get("file", 0)),
            "usage": {
                "limit": _one(groups, "memory.limit_in_bytes", "memory.max"),
                "usage": _one(groups, "memory.usage_in_bytes", "memory.current"),
                "max": _one(groups, "memory.max_usage_in_bytes", "memory.peak"),
                "failcnt": _one(groups, "memory.failcnt"),
            },
            "raw": memory,
        },
        "pids": {"current": _one(groups, "pids.current"), "limit": _one(groups, "pids.max")},
        "blkio": _blkio(groups),
        "hugetlb": {},
    }


def block_io(groups: Sequence[str]) -> tuple[int, int] | None:
    """Bytes read from and written to all disks; None without a group that counts them."""
    entries = _io_entries(groups)
    if entries is None:
        return None
    read, written = (sum(value for _, _, op, value in entries if op == wanted) for wanted in ("Read", "Write"))
    return read, written


def _blkio(groups: Sequence[str]) -> dict[str, Any]:
    keys = ("major", "minor", "op", "value")
    return {"ioServiceBytesRecursive": [dict(zip(keys, entry, strict=True)) for entry in _io_entries(groups) or ()]}


def _io_entries(groups: Sequence[str]) -> list[tuple[int, int, str, int]] | None:
    """Major, minor, what was done and bytes."""
    for name in ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"):
        path = _find(groups, name)
        if path:
            words = (line.split() for line in _text(path).splitlines())
            return [(*_device(word[0]), word[1], int(word[2])) for word in words if len(word) == 3]
    path = _find(groups, "io.stat")
    if not path:
        return None
    found = []
    for line in _text(path).splitlines():
        device, *pairs = line.split()
        counts = dict(pair.partition("=")[::2] for pair in pairs)
        found += [
            (*_device(device), op, int(counts.get(key, 0))) for op, key in (("Read", "rbytes"), ("Write", "wbytes"))
        ]
    return found


def _device(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def oom_kills(groups: Sequence[str]) -> int:
    """How often the kernel has killed a process of the container for its memory limit."""
    for name in ("memory.oom_control", "memory.events"):
        path = _find(groups, name)
        if path:
            return _numbers(path).get("oom_kill", 0)
    return 0


def _cpu(groups: Sequence[str]) -> dict[str, Any]:
    stat = _numbers(_find(groups, "cpu.stat"))
    throttling = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": stat.get("throttled_time", stat.get("throttled_usec", 0) * _NANOSECONDS),
    }
    if "usage_usec" in stat and not _find(groups, "cpuacct.usage"):
        times = {"total": "usage_usec", "user": "user_usec", "kernel": "system_usec"}
        return {"usage": {key: stat[name] * _NANOSECONDS for key, name in times.items()}, "throttling": throttling}
    percpu = [int(word) for word in _text(_find(groups, "cpuacct.usage_percpu")).split()]
    found = {
        "total": _one(groups, "cpuacct.usage"),
        "percpu": percpu,
        "user": _one(groups, "cpuacct.usage_user"),
        "kernel": _one(groups, "cpuacct.usage_sys"),
    }
    return {"usage": found, "throttling": throttling}


def _find(groups: Sequence[str], name: str) -> str:
    return next((path for path in (f"{group}/{name}" for group in groups) if os.path.exists(path)), "")


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _one(groups: Sequence[str], *names: str) -> int:
    for name in names:
        text = _text(_find(groups, name)).strip()
        if text:
            return int(text) if text.isdigit() else 0
    return 0


def _numbers(path: str) -> dict[str, int]:
    words = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}
