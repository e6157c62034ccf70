"""What is known of each container: what it is, and how it goes.

    <store>/containers/ID/monitor     locked (flock) as long as the container's monitor lives
    <store>/containers/ID/ID-json.log what it has written
    <store>/containers/ID/health      what its health checks said last
    <store>/containers/ID/ending      how it ended, until the record says so

The monitor writes how the container goes into the database before anybody can see it. A record
that says ``running`` while nobody holds the lock is that of a killed monitor, whose container
the kernel has killed with it: whoever looks first writes that down. So there is no stale
"running".
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress

from image.bare import loads
from image.config import ContainerConfig
from image.errors import Conflict, ContainerNotFound, StorageError
from image.paths import Path
from image.value import dataclass, replace
from runner.containers import ending
from runner.containers.events import tell, tell_change
from runner.containers.options import RunOptions
from runner.containers.policy import Policy
from runner.containers.stored import decode, encode
from store.container_rows import ContainerRow, ContainerRows
from store.content import storage_errors
from store.locks import is_held
from store.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_KILLED: Final = 137


@dataclass(frozen=True, slots=True)
class Made:
    """What a container was made of. ``directory`` is its writable layer, ``layers`` those below, top first."""

    image_name: str
    config: ContainerConfig
    directory: str
    layers: tuple[str, ...]
    cwd: str
    options: RunOptions
    policy: Policy


@dataclass(frozen=True, slots=True)
class State:
    """How it goes. ``status`` is created, running, restarting, paused, removing, exited or dead.

    Times are seconds since 1970, 0 for never. ``stopped`` says that a user ended it. One that is
    ``attended`` is nothing without the command that made it, started or not. ``networks`` are name, id and
    driver of those that it was on when it started.
    """

    status: str = "created"
    pid: int = 0
    code: int = 0
    started_s: float = 0.0
    finished_s: float = 0.0
    error: str = ""
    oom_killed: bool = False
    restarts: int = 0
    stopped: bool = False
    address: str = ""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[tuple[str, str, str], ...] = ()
    attended: bool = False

    @property
    def is_running(self) -> bool:
        return self.status in ("running", "paused")


@dataclass(frozen=True, slots=True)
class Record:
    """One container."""

    id: str
    name: str
    image: str
    created_s: float
    made: Made
    state: State

    @property
    def labels(self) -> dict[str, str]:
        """The image's, and the container's own, which win."""
        return {**self.made.config.labels, **self.made.policy.labels}


class Records:
    """All containers of a store."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.rows = ContainerRows(store.metadata)
        self.journal = store.journal
        self.clock = clock

    def directory(self, container_id: str) -> Path:
        return self.store.root / "containers" / container_id

    def log(self, record: Record) -> Path:
        return self.directory(record.id) / f"{record.id}-json.log"

    def add(self, record: Record, holds: list[tuple[str, str]]) -> int:
        """An attended one is watched by this process before anybody sees it: the descriptor to keep, else -1.

        Raises NameInUse.
        """
        directory = self.directory(record.id)
        with storage_errors("make a container's directory"):
            directory.mkdir(mode=0o710, parents=True)
        lock = self.watch(record.id) if record.state.attended else -1
        row = ContainerRow(
            record.id, record.name, record.image, record.created_s, encode(record.made), _text(record.state)
        )
        try:
            self.rows.add(row, holds)
        except BaseException:
            from store.directories import discard_tree

            discard_tree(directory)
            if lock >= 0:
                os.close(lock)
            raise
        tell(self.journal, record, "create")
        return lock

    def all(self) -> list[Record]:
        """Every container as it is now, newest first."""
        found = []
        for row in self.rows.all():
            with suppress(ContainerNotFound):  # it has gone meanwhile, or goes as we look
                found.append(self._settled(row))
        return found

    def get(self, word: str) -> Record:
        """By id, name or the start of an id, as it is now. Raises ContainerNotFound, Conflict."""
        return self._settled(self.rows.get(word))

    def unsettled(self, container_id: str) -> Record:
        """For its monitor, which alone knows better. Raises ContainerNotFound."""
        return _record(self.rows.get(container_id))

    def running(self, word: str) -> Record:
        """Raises ContainerNotFound; Conflict when it does not run."""
        record = self.get(word)
        if record.state.status == "restarting":
            raise Conflict(f"container {word} is restarting, wait until it is running")
        if not record.state.is_running:
            raise Conflict(f"container {word} is not running")
        return record

    def set(self, record: Record, state: State) -> Record:
        """Durable when this returns, as far as a killed process goes."""
        self.rows.set_state(record.id, _text(state))
        tell_change(self.journal, record, state)
        return replace(record, state=state)

    def change(self, record: Record, state: State) -> None:
        """The same, unless somebody else has changed the state since the record was read."""
        if self.rows.change_state(record.id, _text(record.state), _text(state)):
            tell_change(self.journal, record, state)

    def remake(self, record: Record, made: Made) -> Record:
        """It was created otherwise, as far as its next start goes."""
        self.rows.set_document(record.id, encode(made))
        return replace(record, made=made)

    def _settled(self, row: ContainerRow) -> Record:
        """As it is, now that somebody looks. Raises ContainerNotFound for one that goes with its killed monitor."""
        record = _record(row)
        if _is_at_rest(record.state) or self.is_watched(record.id):
            return record
        record = _record(self.rows.get(row.id))  # it may have ended between our two looks
        if _is_at_rest(record.state):
            return record
        known = ending.read(self.store.root, record.id) or ending.Ending(_KILLED, self.clock())
        ended = replace(
            record.state, status="exited", code=known.code, pid=0, finished_s=known.finished_s, address="", ports=(),
            stopped=known.stopped,
        )  # fmt: skip
        if record.state.status == "restarting":
            ended = replace(ended, code=record.state.code, finished_s=record.state.finished_s)
        if record.made.policy.remove:
            tell_change(self.journal, record, ended)
            self.forget(record)
            raise ContainerNotFound(f"no such container: {record.id}")
        return self.set(record, ended)

    def is_watched(self, container_id: str) -> bool:
        """Whether a monitor lives."""
        return is_held(self._lock(container_id))

    def watch(self, container_id: str, *, timeout_s: float = 0.0) -> int:
        """Become its monitor, or keep others from it: a descriptor to keep. Raises Conflict while there is another."""
        fd = os.open(self._lock(container_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise Conflict(
                        f"container {container_id[:12]} is busy: another process starts or stops it"
                    ) from None
                time.sleep(0.01)
            else:
                return fd

    def _lock(self, container_id: str) -> Path:
        return self.directory(container_id) / "monitor"

    def forget(self, record: Record) -> None:
        """Remove a container that does not run, with its files."""
        self.rows.remove(record.id)
        tell(self.journal, record, "destroy")
        self.store.layers.discard(record.made.directory)
        from store.directories import discard_tree

        discard_tree(self.directory(record.id))
        with suppress(StorageError):
            self.store.layers.empty_trash()


def _is_at_rest(state: State) -> bool:
    """Whether it is as it should be when nobody watches it."""
    return state.status == "exited" or (state.status == "created" and not state.attended)


def _text(state: State) -> str:
    return encode(state)


def _record(row: ContainerRow) -> Record:
    return Record(row.id, row.name, row.image, row.created_s, decode(row.document, Made), decode(row.state, State))


def read_health(directory: Path) -> dict[str, object] | None:
    """What the monitor wrote of health checks last."""
    try:
        found = loads((directory / "health").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
