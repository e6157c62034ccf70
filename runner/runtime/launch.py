"""Start a container: the launcher's side. ``running`` has what follows the start."""

from __future__ import annotations

from image.value import replace
from runner.runtime import cgroup
from runner.runtime.lifecycle import Lifecycle
from runner.runtime.operations import Operation
from runner.runtime.plan import id_maps, plan
from runner.runtime.privileges import Privileges
from runner.runtime.running import Running
from runner.runtime.spec import Resources, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from runner.runtime.running import Network
    from runner.runtime.spawn import Watcher
    from store.layers import OverlayMount


def launch(
    spec: Spec,
    rootfs: OverlayMount | str | os.PathLike[str],
    watcher: Watcher,
    *,
    privileges: Privileges,
    container_id: str,
    network: Network | None = None,
    trace: Callable[[Operation], None] | None = None,
    lifecycle: Lifecycle = Lifecycle(),  # a frozen value
) -> Running:
    """Start ``spec`` on ``rootfs``; returns once its program has been executed, or waits to be.

    The overlay is mounted inside the container's own mount namespace. ``watcher`` is taken
    over: it holds a lease of the caller's, so that the container's end is seen even when this
    process is killed. ``trace`` sees every operation before anything is done. Safe to call
    from several threads at once.

    Raises CommandNotStarted, KernelError, InvalidInput (unknown user), InvalidSpec or
    NotPermitted; nothing is left behind then.
    """
    privileges.require()
    running = Running(watcher)
    try:
        if not privileges.initial_user_namespace:
            from runner.runtime.fit import fit

            spec = fit(spec, privileges)
        groups = cgroup.create(
            privileges.cgroups, container_id, _own_limits(spec.resources, watcher), spec.cgroups_path,
            everywhere=lifecycle.every_group,
        )  # fmt: skip
        running.hold(groups)
        requests = tuple(network.requests) if network else _loopback(spec)
        operations = plan(spec, rootfs, privileges, container_id=container_id, network=requests, lifecycle=lifecycle)
        listener = lifecycle.listener
        if not privileges.initial_user_namespace and listener is None:
            operations, listener = _with_owners(operations, privileges, rootfs, running)
        for operation in operations if trace is not None else ():
            trace(operation)  # type: ignore[misc]  # not None, as the line above says
        running.begin(
            operations,
            attach=network.attach if network else None,
            id_maps=id_maps(spec),
            hooks=lifecycle.hooks,
            listener=listener,
        )
    except BaseException:
        running.close()
        raise
    return running


def _with_owners(
    operations: tuple[Operation, ...],
    privileges: Privileges,
    rootfs: OverlayMount | str | os.PathLike[str],
    running: Running,
) -> tuple[tuple[Operation, ...], Callable[[int, int], None] | None]:
    """The steps and the listener by which files have owners, where one id alone is mapped; else no listener."""
    from runner.owners.start import supervision, with_listener

    supervised = supervision(privileges, rootfs)
    if supervised is None:
        return operations, None
    running.supervise(supervised)
    return with_listener(operations, supervised.filter), supervised.begin


def _own_limits(resources: Resources, watcher: Watcher) -> Resources:
    """Without the device list, where the process was born in a group that has the same."""
    return replace(resources, devices=()) if watcher.devices == resources.devices else resources


def _loopback(spec: Spec) -> tuple[bytes, ...]:
    """A network namespace of its own has a loopback interface that is down."""
    entry = spec.namespace("network")
    if entry is None or entry.path:
        return ()
    from runner.runtime.rtnetlink import LOOPBACK_INDEX, link_up

    return (link_up(LOOPBACK_INDEX),)
