"""Docker's seccomp filter, compiled: kept apart from the compiler, which most containers don't need."""

from __future__ import annotations

from pathlib import Path


def default_filter(machine: str) -> bytes | None:
    """Docker's profile for docker's capabilities; None for a machine without one."""
    shipped = Path(__file__).with_name(f"seccomp_default.{machine}.bpf")
    return shipped.read_bytes() if shipped.is_file() else None
