"""Asks a running container whether it is well, as HEALTHCHECK says; without blocking its monitor."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from image.errors import TierceError
from image.value import replace
from runner.containers.log import timestamp
from runner.containers.policy import Health, health_command
from runner.containers.records import Record, Records
from runner.runtime.spawn import Stdio

if TYPE_CHECKING:
    from runner.containers.start import Container
    from runner.runtime.running import Running

_KEPT: Final = 5
_MOST_OUTPUT: Final = 4096


class HealthProbe:
    """``step`` it when ``due_s`` has passed or one of ``descriptors`` is readable."""

    def __init__(self, health: Health, records: Records, record: Record) -> None:
        self._health = health
        self._records = records
        self._record = record
        self._began = time.monotonic()
        self._status, self._streak = "starting", 0
        self._results: list[dict[str, object]] = []
        self._running: Running | None = None
        self._reader = -1
        self._output = b""
        self._asked_s, self._asked_at = 0.0, ""
        self._next_s = self._began + self._pause_s()
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _pause_s(self) -> float:
        starting = self._status == "starting" and self._in_start_period()
        return (self._health.start_interval_ns if starting else self._health.interval_ns) / 1e9

    def _in_start_period(self) -> bool:
        return time.monotonic() - self._began < self._health.start_period_ns / 1e9

    @property
    def descriptors(self) -> tuple[int, ...]:
        if self._running is None:
            return ()
        return (self._running.fileno(), *([self._reader] if self._reader >= 0 else []))

    def due_s(self) -> float:
        """Seconds until something is to be done without an event."""
        if self._running is not None:
            return self._asked_s + self._health.timeout_ns / 1e9 - time.monotonic()
        return self._next_s - time.monotonic()

    def step(self, container: Container) -> None:
        """Ask, or take an answer, when it is time."""
        if self._running is None:
            if time.monotonic() >= self._next_s:
                self._ask(container)
            return
        self._take_output()
        if _is_readable(self._running.fileno()):
            self._answered(self._running.wait())
        elif self.due_s() <= 0:
            seconds = self._health.timeout_ns / 1e9
            self._output = f"Health check exceeded timeout ({seconds:g}s)".encode()
            self._answered(-1)

    def _ask(self, container: Container) -> None:
        from runner.containers.begin import describe
        from runner.runtime.enter import enter
        from runner.runtime.privileges import probe

        self._asked_s, self._asked_at = time.monotonic(), timestamp(time.time_ns())
        self._output = b""
        spec = describe(self._records, self._record)
        process = replace(
            spec.process, args=health_command(self._health.test, self._record.made.config.shell), terminal=False
        )
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        pidfd = -1
        try:
            pidfd = os.pidfd_open(container.pid)
            self._running = enter(
                pidfd, process, privileges=probe(), seccomp=spec.seccomp, container_id=self._record.id,
                stdio=Stdio(None, writer, writer),
            )  # fmt: skip
        except (TierceError, OSError) as error:
            self._output = str(error).encode()
            self._answered(-1)
        finally:
            os.close(writer)
            if pidfd >= 0:
                os.close(pidfd)

    def _take_output(self) -> None:
        with suppress(BlockingIOError, OSError):
            while self._reader >= 0:
                data = os.read(self._reader, 1 << 16)
                if not data:
                    os.close(self._reader)
                    self._reader = -1
                    return
                self._output = (self._output + data)[: _MOST_OUTPUT + 1]

    def _answered(self, code: int) -> None:
        self._take_output()
        self._close()
        text = self._output.decode("utf-8", "replace")
        if len(self._output) > _MOST_OUTPUT:
            text = self._output[:_MOST_OUTPUT].decode("utf-8", "replace") + "..."
        result = {"Start": self._asked_at, "End": timestamp(time.time_ns()), "ExitCode": code, "Output": text}
        self._results = [*self._results, result][-_KEPT:]
        if code == 0:
            self._status, self._streak = "healthy", 0
        elif not (self._status == "starting" and self._in_start_period()):
            self._streak += 1
            if self._streak >= self._health.retries:
                self._status = "unhealthy"
        self._next_s = time.monotonic() + self._pause_s()
        self._write()

    def _close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def _write(self) -> None:
        directory = self._records.directory(self._record.id)
        document = {"Status": self._status, "FailingStreak": self._streak, "Log": self._results}
        with suppress(OSError):
            (directory / "health.new").write_text(json.dumps(document))
            os.replace(directory / "health.new", directory / "health")


def _is_readable(fd: int) -> bool:
    from store.linux.descriptors import POLLIN, poll

    return bool(poll({fd: POLLIN}, 0))
