"""``update``: other limits and another restart policy for a container that exists.

A container has control groups for what was limited when it started; for what is limited later
they are made, and its processes are moved there. What was decided is kept as if it had been
said when the container was created, so that it holds after the next start too.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING

from image.errors import Conflict
from image.value import dataclass, replace
from runner.containers.control import Control
from runner.containers.limits import Limits, resources
from runner.containers.policy import check_policy
from runner.containers.records import Made, Record

if TYPE_CHECKING:
    from runner.runtime.spec import Resources


@dataclass(frozen=True, slots=True)
class Changes:
    """What was asked for; members of ``limits`` that are None or empty stay as they are, as does no ``restart``."""

    limits: Limits = Limits()
    restart: str = ""


def update(over: Control, record: Record, changes: Changes) -> Record:
    """Apply the changes to the container, running or not, and keep them. The record as it is then.

    Raises InvalidInput for contradictions, before anything is done; NotPermitted for what the
    kernel refuses, Conflict for a container that ends meanwhile.
    """
    made = changed(record.made, changes)
    wanted = replace(resources(made.options.limits, processors=os.cpu_count() or 0), devices=())
    if record.state.is_running and changes.limits != Limits():
        _apply(over, record, replace(wanted, oom_kill_disable=False, throttles=()))
    with over.records.store.metadata.transaction():  # another update may have been faster
        remade = over.records.remake(record, changed(over.records.get(record.id).made, changes))
    over.tell(remade, "update")
    return remade


def changed(made: Made, changes: Changes) -> Made:
    """Pure. Raises InvalidInput."""
    policy = check_policy(replace(made.policy, restart=changes.restart or made.policy.restart))
    limits = merged(made.options.limits, changes.limits)
    return replace(made, options=replace(made.options, limits=limits), policy=policy)


def merged(old: Limits, new: Limits) -> Limits:
    """The old limits, with those of the new that say something. No processes and no processors are no limit."""
    said = {member.name: getattr(new, member.name) for member in fields(new)}
    given = {
        name: value
        for name, value in said.items()
        if value is not None and value is not False and value not in ("", ())
    }
    if given.get("pids_limit") == 0:
        given["pids_limit"] = -1
    if given.get("cpus") == 0:
        given |= {"cpus": None, "cpu_quota_us": -1}
    return replace(old, **{name: value for name, value in given.items() if value != 0})


def _apply(over: Control, record: Record, wanted: Resources) -> None:
    from runner.containers.members import members
    from runner.runtime.cgroup_change import change, extend
    from runner.runtime.privileges import probe

    cgroups = probe().cgroups

    def processes() -> list[int]:
        return members(record.state.pid, over.groups(record))

    try:
        groups = extend(cgroups, record.id, over.movable(record), wanted, processes)
        change(cgroups, groups, wanted)
    except FileNotFoundError:
        raise Conflict(f"container {record.name} has just ended: try again") from None
