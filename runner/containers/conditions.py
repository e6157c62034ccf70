"""What ``wait --condition`` waits for: docker's conditions, and podman's states."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from image.errors import ContainerNotFound, InvalidInput
from runner.containers.records import Record, Records, read_health

if TYPE_CHECKING:
    from runner.containers.control import Control

_STATES: Final = {
    "configured": ("created",), "created": ("created",), "running": ("running",), "paused": ("paused",),
    "exited": ("exited",), "stopped": ("exited",),
}  # fmt: skip
_HEALTH: Final = ("healthy", "unhealthy", "starting")
_ENDS: Final = ("not-running", "next-exit", "removed")
CONDITIONS: Final = (*_ENDS, *_STATES, *_HEALTH)
_WITHOUT_CODE: Final = -1
_POLL_S: Final = 0.02


def check_conditions(words: Collection[str]) -> None:
    """Raises InvalidInput."""
    for word in words:
        if word not in CONDITIONS:
            raise InvalidInput(f"invalid condition {word!r}: there are {', '.join(CONDITIONS)}")


def wait_for(over: Control, record: Record, conditions: Collection[str]) -> int:
    """Until one of the conditions holds: the exit code, as podman -1 for a state that is no end.

    ``not-running`` alone, or nothing, is docker's wait. A container that goes meanwhile has ended.
    """
    if not conditions or set(conditions) == {"not-running"}:
        return over.wait(record)
    first, code = record.state, record.state.code
    while True:
        try:
            record = over.records.get(record.id)
        except ContainerNotFound:
            return code
        code = record.state.code
        ended = not (record.state.is_running or record.state.status == "restarting")
        if ("not-running" in conditions and ended) or (
            "next-exit" in conditions and record.state.finished_s > first.finished_s
        ):
            return code
        if _holds(over.records, record, conditions):
            return code if record.state.status == "exited" else _WITHOUT_CODE
        time.sleep(_POLL_S)


def _holds(records: Records, record: Record, conditions: Collection[str]) -> bool:
    states = {state for word in conditions for state in _STATES.get(word, ())}
    if record.state.status in states:
        return True
    health = [word for word in conditions if word in _HEALTH]
    return bool(health) and (read_health(records.directory(record.id)) or {}).get("Status") in health
