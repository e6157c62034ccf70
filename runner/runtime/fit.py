"""A spec as it can be had in a user namespace: what the kernel refuses there, left out or replaced.

Pure. The host's root gets its spec back as it is. What docker sets by default is dropped
silently when nobody would miss it; what the user asked for and cannot have is an error.

Spec: engine behaviour of rootless docker and podman; user_namespaces(7).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from image.errors import NotPermitted
from image.value import replace
from runner.runtime.privileges import Privileges
from runner.runtime.spec import Mount, NamedUser, Resources, Spec

_PING_GROUPS: Final = "net.ipv4.ping_group_range"
_TTY_GROUP: Final = 5


def fit(spec: Spec, privileges: Privileges) -> Spec:
    """The nearest spec that this process can start. Raises NotPermitted for a limit without a place for its group."""
    if privileges.initial_user_namespace:
        return spec
    user = spec.process.user
    if privileges.mapped_gids == 1 and (user.groups if isinstance(user, NamedUser) else user.additional_gids):
        raise NotPermitted("cannot add groups: one id alone is mapped here, give this user ranges in /etc/subgid")
    own_network = spec.namespace("network") is not None
    return replace(
        spec,
        mounts=tuple(_mount(mount, own_network, privileges.mapped_gids) for mount in spec.mounts),
        resources=_resources(spec),
        sysctl=_sysctls(spec, privileges.mapped_gids),
    )


def _mount(mount: Mount, own_network: bool, gids: int) -> Mount:
    if mount.type == "sysfs" and not own_network:
        # a new sysfs shows a network namespace, so it takes privileges over that; the host's is shared then
        kept = [word for word in mount.options if word != "ro"]
        return replace(
            mount, type="bind", source="/sys", options=("rbind", "rro" if "ro" in mount.options else "rw", *kept)
        )
    if mount.type == "devpts" and gids <= _TTY_GROUP:
        return replace(mount, options=tuple(word for word in mount.options if word != f"gid={_TTY_GROUP}"))
    return mount


def limits(resources: Resources) -> str:
    """The first limit that is asked for; "" when there is none."""
    names = (field.name for field in fields(Resources) if field.name != "devices")
    return next((name.replace("_", " ") for name in names if getattr(resources, name) not in (None, "", (), 0)), "")


def _resources(spec: Spec) -> Resources:
    """Devices need no list: those of the host can't be opened, and none can be made."""
    wanted = limits(spec.resources)
    if wanted and not spec.cgroups_path:
        raise NotPermitted(
            f"cannot set {wanted} as an ordinary user: no control group is delegated to this process (try sudo)"
        )
    return replace(spec.resources, devices=())


def _sysctls(spec: Spec, gids: int) -> dict[str, str]:
    """Ping for all groups that exist here: the kernel refuses a range with others in it."""
    found = dict(spec.sysctl)
    if found.get(_PING_GROUPS) == "0 2147483647":
        found[_PING_GROUPS] = f"0 {min(gids - 1, 2147483647)}"
    return found
