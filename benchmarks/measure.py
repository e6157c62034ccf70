"""Take turns, time, and keep every measurement.

A contender prepares untimed, then runs timed. Turns rotate, so that no contender always
runs just after the same other one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


def nothing() -> None:
    """No preparation."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One tool's way to do the work. ``prepare`` brings back the state that ``run`` starts from."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = nothing


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The same work for all contenders; ``note`` says what the figures do not.

    ``is_warm`` work needs no round that does not count.
    """

    name: str
    work: str
    contenders: tuple[Contender, ...]
    note: str = ""
    is_warm: bool = False


@dataclass(slots=True)
class Outcome:
    """Wall-clock seconds of one contender, or why there are none."""

    contender: str
    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median_s(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


def measure(benchmark: Benchmark, *, repeat: int, clock: Callable[[], float] = time.perf_counter) -> list[Outcome]:
    """Times of ``repeat`` rounds, one list per contender; one more round first, not counted, unless it is warm.

    A contender that fails is out from then on, and its outcome says why.
    """
    outcomes = {contender.name: Outcome(contender.name) for contender in benchmark.contenders}
    for turn in range(1 if benchmark.is_warm else 0, repeat + 1):
        for contender in _rotated(benchmark.contenders, turn):
            outcome = outcomes[contender.name]
            if not outcome.failure:
                _take_turn(contender, outcome, clock, counts=turn > 0)
    return list(outcomes.values())


def _rotated(contenders: tuple[Contender, ...], by: int) -> Iterable[Contender]:
    start = by % len(contenders)
    return (*contenders[start:], *contenders[:start])


def _take_turn(contender: Contender, outcome: Outcome, clock: Callable[[], float], *, counts: bool) -> None:
    try:
        contender.prepare()
        start = clock()
        contender.run()
        seconds = clock() - start
    except (AssertionError, OSError) as error:
        outcome.failure = str(error).strip().splitlines()[-1]
        outcome.seconds = []
        return
    if counts:
        outcome.seconds.append(seconds)
