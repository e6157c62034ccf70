"""Asks a running container once whether it is well, as HEALTHCHECK says, and writes the answer down.

The process that does so is started by the container's monitor and ends with it.

    <store>/containers/ID/health      docker's ``State.Health`` of inspect
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

from image.bare import dumps
from image.errors import TierceError
from image.paths import Path
from image.value import dataclass, replace
from runner.containers import policy as policies
from runner.containers.events import tell
from runner.containers.health_timer import STARTING
from runner.containers.log import timestamp
from runner.containers.policy import Health, health_command
from runner.containers.records import Record, Records, read_health
from runner.runtime.spawn import Stdio
from store.linux.processes import PR_SET_PDEATHSIG, prctl
from store.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from runner.runtime.running import Running

_KEPT: Final = 5
_MOST_OUTPUT: Final = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """``code`` -1 when there was none; times as in a log."""

    asked: str
    answered: str
    code: int
    output: bytes

    def document(self) -> dict[str, object]:
        text = self.output[:_MOST_OUTPUT].decode("utf-8", "replace")
        more = "..." if len(self.output) > _MOST_OUTPUT else ""
        return {"Start": self.asked, "End": self.answered, "ExitCode": self.code, "Output": text + more}


def begin(directory: Path) -> None:
    """A new life: nothing is known yet."""
    _write(directory, {"Status": "starting", "FailingStreak": 0, "Log": []})


def judge(before: dict[str, object], answer: Answer, *, retries: int, forgiving: bool) -> dict[str, object]:
    """What is known after one more answer. ``forgiving`` in the start period: a failure does not count then. Pure."""
    status, streak, log = before.get("Status", "starting"), before.get("FailingStreak", 0), before.get("Log", [])
    assert isinstance(streak, int)
    assert isinstance(log, list)
    if answer.code == 0:
        status, streak = "healthy", 0
    elif not (status == "starting" and forgiving):
        streak += 1
        status = "unhealthy" if streak >= retries else status
    return {"Status": status, "FailingStreak": streak, "Log": [*log, answer.document()][-_KEPT:]}


def main() -> NoReturn:
    """Arguments: packages, store, container, whether it is in its start period."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    store_root, container_id, forgiving = sys.argv[2:5]
    code = 0
    with suppress(TierceError), Store.open(Path(store_root)) as store:
        records = Records(store)
        record = records.unsettled(container_id)
        health = policies.health(record.made.policy, record.made.config)
        if health is not None:
            answer = _ask(records, record, health)
            directory = records.directory(record.id)
            before = read_health(directory) or {}
            document = judge(
                before, answer, retries=health.retries, forgiving=forgiving == "1"
            )  # fmt: skip
            _write(directory, document)
            if document["Status"] != before.get("Status"):
                tell(records.journal, record, f"health_status: {document['Status']}")
            code = STARTING if document["Status"] == "starting" else 0
    os._exit(code)


def _ask(records: Records, record: Record, health: Health) -> Answer:
    from runner.containers.begin import describe
    from runner.runtime.enter import enter
    from runner.runtime.privileges import probe

    asked = timestamp(time.time_ns())
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writer, True)
    try:
        spec = describe(records, record)
        process = replace(spec.process, args=health_command(health.test, record.made.config.shell), terminal=False)
        pidfd = os.pidfd_open(record.state.pid)
        with enter(
            pidfd, process, privileges=probe(), seccomp=spec.seccomp, container_id=record.id,
            stdio=Stdio(None, writer, writer),
        ) as running:  # fmt: skip
            os.close(writer)
            code, output = _hear(running, reader, health.timeout_ns / 1e9)
    except (TierceError, OSError) as error:
        code, output = -1, str(error).encode()
    return Answer(asked, timestamp(time.time_ns()), code, output)


def _hear(running: Running, reader: int, seconds: float) -> tuple[int, bytes]:
    """Its exit code and the beginning of what it says; -1 when the time is up."""
    deadline, output, talking = time.monotonic() + seconds, b"", True
    while True:
        poller = select.poll()
        poller.register(running.fileno(), select.POLLIN)
        if talking:
            poller.register(reader, select.POLLIN)
        events = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000) + 1)))
        if not events:
            return -1, f"Health check exceeded timeout ({seconds:g}s)".encode()
        piece = _read(reader) if talking else b""
        output = (output + piece)[: _MOST_OUTPUT + 1]
        if running.fileno() in events:
            return running.wait(), output
        talking = bool(piece) or reader not in events


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""


def _write(directory: Path, document: dict[str, object]) -> None:
    with suppress(OSError):
        (directory / "health.new").write_text(dumps(document))
        os.replace(directory / "health.new", directory / "health")
