"""``delete``: remove what is left of a container that has ended, or with force end it."""

from __future__ import annotations

import os

from image.bare import signals, suppress
from image.errors import Conflict, ContainerNotFound, TierceError
from runner.runtime import cgroup
from runner.runtime.call import Call
from runner.runtime.record import Record
from runner.runtime.spec import Hook
from store.linux import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE_MS = 10_000


def run(call: Call) -> int:
    force = call.options.flag("force")
    try:
        found = call.container()
    except ContainerNotFound:
        if force:
            return 0
        raise
    status = found.status
    if status in ("running", "paused") and not force:
        raise Conflict(f"cannot delete container {found.id} that is not stopped: {status} (use --force)")
    if status != "stopped":
        end(found)
    remove(call, found)
    return 0


def end(found: Record) -> None:
    """KILL, and wait until the kernel has buried it. Raises TierceError after ten seconds."""
    with suppress(ContainerNotFound):
        pidfd = found.pidfd()
        try:
            with suppress(ProcessLookupError):
                signals.pidfd_send_signal(pidfd, signals.SIGKILL)
            if found.frozen:
                from runner.runtime import freezer

                with suppress(TierceError):  # a frozen process of v1 dies once it thaws
                    freezer.thaw(found.groups)
            if not descriptors.poll({pidfd: descriptors.POLLIN}, _PATIENCE_MS):
                raise TierceError(f"container {found.id} still runs ten seconds after SIGKILL")
        finally:
            os.close(pidfd)


def remove(call: Call, found: Record, hooks: Sequence[Hook] | None = None) -> None:
    """Groups, poststop hooks (a failure warns) and the record. Idempotent."""
    if found.groups:
        cgroup.ControlGroups(found.groups).remove()
    else:  # killed while it was made
        from runner.runtime.privileges import probe

        cgroup.leftovers(probe().cgroups, found.id, found.place).remove()
    try:
        if hooks is None:
            from runner.runtime.bundle import stored_spec

            hooks = stored_spec(found).hooks.poststop
        if hooks:
            from runner.runtime.hooks import encode_state, run_hooks

            run_hooks("poststop", hooks, encode_state(found.oci_state("stopped")))
    except TierceError as error:
        if found.pid:  # else the record was never finished, and nothing of it ran
            call.warn(str(error))
    found.forget()
