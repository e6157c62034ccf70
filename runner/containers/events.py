"""What is told of a container when its state changes: docker's events, by what was and what is. Pure but for ``Told``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.containers.records import Record, State
    from store.journal import Journal


def attributes(record: Record, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Labels, image and name, as docker has them, and what belongs to the event alone."""
    return {**record.labels, "image": record.made.image_name, "name": record.name, **(more or {})}


def changes(record: Record, state: State) -> Iterator[tuple[str, dict[str, str]]]:
    """Actions and their own attributes, from the record's state to the next one."""
    before, after = record.state, state
    if before.is_running and after.is_running:
        if before.status != after.status:
            yield ("pause" if after.status == "paused" else "unpause"), {}
    elif after.is_running:
        yield "start", {}
    elif before.is_running:
        if after.oom_killed:
            yield "oom", {}
        lasted = max(0, int(after.finished_s - before.started_s))
        yield "die", {"exitCode": str(after.code), "execDuration": str(lasted)}


def tell(journal: Journal, record: Record, action: str, more: Mapping[str, str] | None = None) -> None:
    """One event of the container."""
    journal.write("container", action, record.id, attributes(record, more))


def tell_change(journal: Journal, record: Record, state: State) -> None:
    """What the change from the record's state means, with what it means for networks and volumes."""
    starts = state.is_running and not record.state.is_running
    if starts:
        _tell_surroundings(journal, record, state, "connect", "mount")
    for action, more in changes(record, state):
        tell(journal, record, action, more)
    if record.state.is_running and not state.is_running:
        _tell_surroundings(journal, record, record.state, "disconnect", "unmount")


def _tell_surroundings(journal: Journal, record: Record, state: State, network: str, volume: str) -> None:
    for name, identity, driver in state.networks:
        journal.write("network", network, identity, {"container": record.id, "name": name, "type": driver})
    for mount in record.made.options.mounts:
        if mount.kind == "volume" and mount.source:
            more = {"container": record.id, "driver": "local"}
            if volume == "mount":
                more |= {
                    "destination": mount.target, "propagation": mount.propagation,
                    "read/write": "false" if mount.read_only else "true",
                }  # fmt: skip
            journal.write("volume", volume, mount.source, more)
