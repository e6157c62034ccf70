"""Docker's seccomp filter, compiled: kept apart from the compiler, which most containers don't need."""

from __future__ import annotations

import os


def default_filter(machine: str) -> bytes | None:
    """Docker's profile for docker's capabilities; None for a machine without one."""
    try:
        with open(f"{os.path.dirname(__file__)}/seccomp_default.{machine}.bpf", "rb") as shipped:
            return shipped.read()
    except FileNotFoundError:
        return None
