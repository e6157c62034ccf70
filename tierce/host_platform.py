"""What this machine runs."""

from __future__ import annotations

import os

from image.platform import Platform


def host_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname()
    return Platform.of_machine(machine.sysname, machine.machine)
