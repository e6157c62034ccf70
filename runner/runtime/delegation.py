"""Control groups for those who don't own the machine's: a user whom systemd serves, root inside a container.

On cgroup v2 a part of the tree may be handed to a user. Either this process is in such a part
(``systemd-run --user --scope -p Delegate=yes``, or a container's own tree), and groups are made
there; or the user's systemd is asked for a scope around the container's process, which needs no
rights. Groups of v1 can't be handed on.

Spec: kernel ``cgroup-v2`` "Delegation"; systemd ``org.freedesktop.systemd1(5)``, CGROUP_DELEGATION.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from image.errors import NotPermitted
from runner.runtime.cgroup import LEAF, SCOPE, make_leaf, membership
from runner.runtime.user_namespace import entered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from runner.runtime.privileges import Cgroups

_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.002
_MANAGER: Final = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")


def place_for(cgroups: Cgroups, container_id: str, processes: Sequence[int], uid: int) -> str:
    """Where in the v2 tree the groups of this container can be made, relative to its root.

    ``processes`` are those that will be moved there, and those that are to be beside them; ``uid`` is
    the user's outside of any namespace.
    Raises NotPermitted, saying what would help.
    """
    if cgroups.layout != "v2":
        raise NotPermitted(
            "an ordinary user can limit containers only where all control groups are of v2, and here they are not "
            "(boot with systemd.unified_cgroup_hierarchy=1, or try sudo)"
        )
    own = own_place(cgroups)
    if own is not None:
        return f"{own}/tierce/{container_id}".lstrip("/")
    scope = _scope(container_id, processes, uid)
    make_leaf(f"{cgroups.v2}{scope}")
    return f"{scope}/tierce/{container_id}".lstrip("/")


def own_place(cgroups: Cgroups) -> str | None:
    """The group of this process, ``/…``, when groups may be made in it; None when not."""
    own = membership("self").get("", "/").removesuffix(f"/{LEAF}").rstrip("/")
    files = ("cgroup.procs", "cgroup.subtree_control")
    return own if all(os.access(f"{cgroups.v2}{own}/{file}", os.W_OK) for file in files) else None


def attach(group: str, pid: int) -> None:
    """Move a process that is elsewhere into a group below a scope of the user's systemd. Raises NotPermitted."""
    inside = entered()
    above, _, below = group.partition(SCOPE)
    unit = f"{os.path.basename(above)}{SCOPE.rstrip('/')}"
    _ask(
        inside.outer_uid if inside else os.geteuid(),
        ["AttachProcessesToUnit", "ssau", unit, f"/{below}", "1", str(pid)],
    )


def describe(cgroups: Cgroups, uid: int) -> str:
    """For ``system info``: who could limit an ordinary user's containers here."""
    if cgroups.layout != "v2":
        return f"not for ordinary users (cgroup {cgroups.layout})"
    if own_place(cgroups) is not None:
        return "in this process's own control group"
    return "by the user's systemd" if os.path.exists(_bus(uid)) else "none: no systemd of this user runs"


def _bus(uid: int) -> str:
    return f"/run/user/{uid}/bus"


def _scope(container_id: str, processes: Sequence[int], uid: int) -> str:
    """A scope of the user's systemd around the processes; its group. It ends with the last of them."""
    if not os.path.exists(_bus(uid)):
        raise NotPermitted(
            "no control group is delegated to this user: log in, or as root: loginctl enable-linger; "
            "inside another manager use a delegated group (or try sudo)"
        )
    name = f"tierce-{container_id[:12]}-{os.getpid()}.scope"
    pids = [str(len(processes)), *map(str, processes)]
    words = ["PIDs", "au", *pids, "Delegate", "b", "true", "CollectMode", "s", "inactive-or-failed"]
    _ask(uid, ["StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", "3", *words, "0"])
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        places = {place for each in processes if (place := _place(each))}
        if len(places) == 1 and (place := places.pop()).endswith(f"/{name}"):
            return place
        if time.monotonic() > deadline:
            raise NotPermitted(f"the user's systemd did not make the scope {name} (journalctl --user -u {name})")
        time.sleep(_PAUSE_S)


def _place(pid: int) -> str:
    with suppress(OSError):
        return membership(str(pid)).get("", "")
    return ""


def _ask(uid: int, call: list[str]) -> None:
    import subprocess

    argv = ["busctl", f"--address=unix:path={_bus(uid)}", "--quiet", "call", *_MANAGER, *call]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise NotPermitted("the user's systemd can't be asked for a control group: busctl is not installed") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1].lower()
        raise NotPermitted(f"the user's systemd refuses a control group: {said}")
