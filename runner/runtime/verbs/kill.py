"""``kill``: a signal for the container's pid 1, or with --all for all its processes."""

from __future__ import annotations

import os
import signal

from image.errors import Conflict, ContainerNotFound, InvalidInput
from runner.runtime import processes
from runner.runtime.call import Call


def run(call: Call) -> int:
    operands = call.arguments.operands
    number = parse_signal(operands[1] if len(operands) > 1 else "SIGTERM")
    found = call.container()
    if call.options.flag("all"):
        processes.signal_all(found.groups, number)
        return 0
    try:
        pidfd = found.pidfd()
    except ContainerNotFound:
        raise Conflict(f"cannot kill container {found.id}: container not running") from None
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Conflict(f"cannot kill container {found.id}: container not running") from None
    finally:
        os.close(pidfd)
    if number == signal.SIGKILL and found.frozen and any("/freezer/" in group for group in found.groups):
        from runner.runtime import freezer

        freezer.thaw(found.groups)  # a frozen process of v1 dies once it thaws
    return 0


def parse_signal(text: str) -> int:
    """A number, or a name with or without SIG; 0 only asks whether it runs. Raises InvalidInput."""
    if text.isdigit() and int(text) <= signal.SIGRTMAX:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, separator, offset = name.partition("+")
    if base in ("RTMIN", "RTMAX") and separator and offset.isdigit():
        return int(signal.SIGRTMIN) + int(offset)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise InvalidInput(f"unknown signal {text!r}") from None
