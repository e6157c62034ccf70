"""What ``tierce build`` lets every RUN have: hosts, name servers, memory, processors, capabilities.

None of it makes another step: it changes how a step runs, not what it does. It is written down
as the options of a container, so that a failed step can be entered with the same.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from image.errors import InvalidInput
from image.value import replace
from runner.containers.limits import last_of_each, resources
from runner.containers.options import RunOptions
from runner.containers.security import ipc_mounts, parse_protections, seccomp
from runner.runtime import capabilities

if TYPE_CHECKING:
    from runner.runtime.spec import Spec


def limited(spec: Spec, options: RunOptions, *, insecure: bool, container_id: str) -> Spec:
    """A step's container, which is docker's default, with what the user gives and takes away.

    Raises InvalidInput. A step with ``insecure`` has every capability and no filter already.
    """
    asked = options.security
    protections = parse_protections(asked.options)
    names = capabilities.choose(add=asked.cap_add, drop=asked.cap_drop, privileged=insecure)
    mounts = ipc_mounts(asked, options.shm_size)
    taken = {mount.destination for mount in mounts}
    return replace(
        spec,
        process=replace(
            spec.process,
            capabilities=capabilities.granted(names),
            rlimits=last_of_each(options.limits.ulimits),
            no_new_privileges=protections.no_new_privileges,
        ),
        mounts=tuple(mount for mount in spec.mounts if mount.destination not in taken) + mounts,
        resources=replace(resources(options.limits), devices=spec.resources.devices),
        seccomp=seccomp(protections, privileged=insecure, capabilities=names, machine=os.uname().machine),
        masked_paths=spec.masked_paths if protections.system_paths else (),
        readonly_paths=spec.readonly_paths if protections.system_paths else (),
        cgroups_path=options.cgroups_path(container_id),
    )


def only_names(options: RunOptions) -> bool:
    """Whether it is nothing but names of hosts, for which no namespace is needed."""
    return options == RunOptions(network=replace(RunOptions().network, hosts=options.network.hosts))


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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
