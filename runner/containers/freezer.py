"""Freeze and thaw all processes of a container.

On cgroup v1 the freezer is a hierarchy of its own, into which a container moves when it is
paused for the first time; on v2 every group can be frozen.

Spec: kernel ``cgroup-v1/freezer-subsystem``, ``cgroup-v2`` "cgroup.freeze".
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from image.errors import NotPermitted
from runner.runtime import cgroup
from runner.runtime.privileges import probe

_PATIENCE_S = 10.0


def freeze(pid: int, container_id: str) -> None:
    """``pid`` is the container's first process. Raises NotPermitted."""
    group, file, frozen = _group(container_id)
    try:
        group.mkdir(parents=True, exist_ok=True)
        if file == "freezer.state":
            for process in processes(pid):
                with suppress(ProcessLookupError):
                    (group / "cgroup.procs").write_text(str(process))
        (group / file).write_text(frozen)
        _wait_until_frozen(group, file)
    except OSError as error:
        raise NotPermitted(f"cannot pause the container by {group}: {os.strerror(error.errno or 0).lower()}") from error


def thaw(container_id: str) -> None:
    """Raises NotPermitted."""
    group, file, _ = _group(container_id)
    try:
        (group / file).write_text("THAWED" if file == "freezer.state" else "0")
    except OSError as error:
        raise NotPermitted(
            f"cannot unpause the container by {group}: {os.strerror(error.errno or 0).lower()}"
        ) from error


def _group(container_id: str) -> tuple[Path, str, str]:
    found = probe().cgroups
    if "freezer" in found.v1:
        return Path(found.v1["freezer"]) / cgroup.PARENT / container_id, "freezer.state", "FROZEN"
    if found.v2:
        return Path(found.v2) / cgroup.PARENT / container_id, "cgroup.freeze", "1"
    raise NotPermitted("cannot pause a container: there is no freezer control group here")


def processes(pid: int) -> list[int]:
    """All processes of the pid namespace of ``pid``, by their numbers here. Raises FileNotFoundError."""
    namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                    found.append(int(name))
    return found


def _wait_until_frozen(group: Path, file: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while file == "freezer.state" and (group / file).read_text().strip() != "FROZEN" and time.monotonic() < deadline:
        time.sleep(0.005)
