"""The facts of a machine without which its figures mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

_TOOLS = {
    "docker": ["dockerd", "--version"],
    "podman": ["podman", "--version"],
    "buildah": ["buildah", "--version"],
    "skopeo": ["skopeo", "--version"],
    "runc": ["runc", "--version"],
}


def facts() -> dict[str, str]:
    """Processor, memory, kernel, file system and the versions of the tools that are here."""
    return {
        "processor": _first_value(Path("/proc/cpuinfo"), "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _first_value(Path("/proc/meminfo"), "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(argv) for name, argv in _TOOLS.items() if shutil.which(argv[0])},
    }


def _first_value(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def _version(argv: list[str]) -> str:
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout.partition("\n")[0].strip()
