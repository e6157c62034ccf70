"""A host that says "wait" to one thread is asked nothing by the others, nor by other processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, Emulator, emulate
from fixtures.registries.faults import refused, with_headers
from transfer.registry.pace import Pace
from transfer.registry.transport import Body, Transport
from transfer.registry.wire import Request, origin

HERE, THERE = origin("https://a.example.com"), origin("https://b.example.com")


class Clock:
    """Time that passes in sleeps alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pace(clock: Clock, directory: Path | None = None) -> Pace:
    return Pace(60.0, directory, clock, jitter=lambda: 0.0)


@pytest.fixture
def registry() -> Iterator[Emulator]:
    with emulate(PLAIN) as running:
        yield running


@pytest.fixture
def transport(clock: Clock) -> Iterator[Transport]:
    made = Transport({}, pace=pace(clock))
    made.sleep = clock.sleep  # type: ignore[method-assign]
    yield made
    made.close()


def ask(transport: Transport, registry: Emulator, body: Body | None = None) -> int:
    method = "GET" if body is None else "PUT"
    with transport.send(Request(method, f"{registry.url}/v2/"), body) as reply:
        return reply.status


@pytest.mark.parametrize(
    ("status", "headers", "waited"),
    [
        (429, {"Retry-After": "7"}, [7.0]), (503, {"Retry-After": "7"}, [7.0]), (429, {}, [1.0]),
        (429, {"Retry-After": "100000"}, [60.0]), (429, {"Retry-After": "-5"}, []), (500, {"Retry-After": "7"}, []),
    ],
)  # fmt: skip
def test_a_refusal_makes_every_request_wait(
    transport: Transport, registry: Emulator, clock: Clock, status: int, headers: dict[str, str], waited: list[float]
) -> None:
    registry.on("GET", refused(status, headers=headers))
    assert ask(transport, registry) == status
    assert ask(transport.scoped(), registry) == 200
    assert clock.slept == waited


def test_an_upload_waits_too(transport: Transport, registry: Emulator, clock: Clock) -> None:
    registry.on("GET", refused(429, headers={"Retry-After": "3"}))
    ask(transport, registry)
    ask(transport, registry, Body([b"x"], 1))
    assert clock.slept == [3.0]


def test_the_last_request_before_a_moment_that_is_named(transport: Transport, registry: Emulator, clock: Clock) -> None:
    registry.on("GET", with_headers(RateLimit_Remaining="1", RateLimit_Reset="9"))
    registry.on("GET", with_headers(RateLimit_Remaining="0", RateLimit_Reset="9"))
    registry.on("GET", with_headers(RateLimit_Remaining="0;w=21600"))
    for _ in range(4):
        ask(transport, registry)
    assert clock.slept == [9.0]


def test_other_hosts_do_not_wait(clock: Clock) -> None:
    one = pace(clock)
    one.pause(HERE, 5)
    assert (one.wait_s(HERE), one.wait_s(THERE)) == (5.0, 0.0)


def test_a_shorter_pause_does_not_end_a_longer_one(clock: Clock) -> None:
    one = pace(clock)
    one.pause(HERE, 5)
    one.pause(HERE, 1)
    assert one.wait_s(HERE) == 5.0


def test_other_processes_wait(clock: Clock, tmp_path: Path) -> None:
    one, other = pace(clock, tmp_path / "paces"), pace(clock, tmp_path / "paces")
    one.pause(HERE, 5)
    assert (other.wait_s(HERE), other.wait_s(THERE)) == (5.0, 0.0)
    clock.sleep(5)
    assert other.wait_s(HERE) == 0.0
    assert list((tmp_path / "paces").iterdir()) == []


def test_a_clock_that_was_set_back_holds_nobody_for_long(clock: Clock, tmp_path: Path) -> None:
    pace(clock, tmp_path).pause(HERE, 5)
    clock.now -= 10_000
    assert pace(clock, tmp_path).wait_s(HERE) == 60.0


def test_where_nothing_can_be_written(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one = pace(clock, tmp_path / "file" / "paces")
    one.pause(HERE, 5)
    assert one.wait_s(HERE) == 5.0
