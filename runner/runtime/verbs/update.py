"""``update``: other limits for a container that runs."""

from __future__ import annotations

import sys

from image.errors import Conflict, InvalidInput
from image.value import replace
from runner.runtime.arguments import Options
from runner.runtime.bundle import read_file
from runner.runtime.call import Call
from runner.runtime.cgroup_change import change
from runner.runtime.config_json import decode_resources
from runner.runtime.privileges import probe
from runner.runtime.spec import Resources

_REFUSED = (
    "cpu-rt-period", "cpu-rt-runtime", "cpu-burst", "cpu-idle", "kernel-memory", "kernel-memory-tcp",
    "l3-cache-schema", "mem-bw-schema",
)  # fmt: skip
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def run(call: Call) -> int:
    found = call.container()
    if found.status == "stopped":
        raise Conflict(f"cannot update container {found.id}: it is stopped")
    change(probe().cgroups, found.groups, wanted_resources(call.options))
    return 0


def wanted_resources(options: Options) -> Resources:
    """What --resources or the other options ask for; None stays as it is. Raises InvalidInput."""
    for name in _REFUSED:
        if options.text(name) not in ("", "0"):
            raise InvalidInput(f"--{name} is not supported by this runtime")
    source = options.text("resources")
    if source:
        return replace(decode_resources(sys.stdin.buffer.read() if source == "-" else read_file(source)), devices=())
    return Resources(
        memory_limit=_size(options, "memory"),
        memory_reservation=_size(options, "memory-reservation"),
        memory_swap=_size(options, "memory-swap"),
        cpu_shares=options.number("cpu-share"),
        cpu_quota_us=options.number("cpu-quota"),
        cpu_period_us=options.number("cpu-period"),
        cpuset_cpus=options.text("cpuset-cpus"),
        cpuset_mems=options.text("cpuset-mems"),
        pids_limit=options.number("pids-limit"),
        blkio_weight=options.number("blkio-weight"),
    )


def _size(options: Options, name: str) -> int | None:
    """Bytes, with a suffix b, k, m, g or t; -1 is no limit."""
    text = options.text(name).lower()
    if not text:
        return None
    number = text.rstrip("bkmgt")
    try:
        return int(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        raise InvalidInput(f"--{name} {text!r} is not a size") from None
