"""What a container takes from the host that it starts on, looked up here so that ``options`` stays pure."""

from __future__ import annotations

import os
from collections.abc import Mapping

from runner.containers.devices import find_devices
from runner.containers.options import RunOptions, Surroundings
from runner.runtime import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.security import Shared
    from runner.runtime.spec import Mount


def look_around(
    options: RunOptions,
    container_id: str,
    cwd: str,
    *,
    environ: Mapping[str, str],
    mounts: tuple[Mount, ...],
    joined: Mapping[Shared, int],
    size: tuple[int, int] | None = None,
) -> Surroundings:
    """The fields are ``Surroundings``'. Raises InvalidInput for a device that is not there."""
    host = os.uname()
    return Surroundings(
        container_id,
        environ,
        cwd,
        host.nodename,
        defaults.host_devices() if options.security.privileged else (),
        size,
        mounts=mounts,
        devices=find_devices(options.devices),
        joined=joined,
        processors=os.cpu_count() or 0,
        machine=host.machine,
    )
