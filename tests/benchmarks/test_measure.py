"""The harness takes turns fairly, keeps what it measured, and goes on without what fails."""

from __future__ import annotations

from itertools import count

from benchmarks.measure import Benchmark, Contender, Outcome, measure
from benchmarks.report import table


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        return Contender(name, lambda: order.append(name), lambda: order.append(f"prepare {name}"))

    ticks = count()
    benchmark = Benchmark("b", "work", (contender("x"), contender("y")))
    outcomes = measure(benchmark, repeat=2, clock=lambda: float(next(ticks)))
    assert order == [
        "prepare x",
        "x",
        "prepare y",
        "y",
        "prepare y",
        "y",
        "prepare x",
        "x",
        "prepare x",
        "x",
        "prepare y",
        "y",
    ]
    assert [outcome.seconds for outcome in outcomes] == [[1.0, 1.0], [1.0, 1.0]]


def test_warm_work_needs_no_round_that_does_not_count() -> None:
    rounds: list[str] = []
    benchmark = Benchmark("b", "work", (Contender("x", lambda: rounds.append("x")),), is_warm=True)
    assert len(measure(benchmark, repeat=2)[0].seconds) == len(rounds) == 2


def test_who_fails_is_out_and_says_why() -> None:
    def fail() -> None:
        raise AssertionError("tool: exit code 1\nno such flag")

    benchmark = Benchmark("b", "work", (Contender("broken", fail), Contender("tierce", lambda: None)))
    broken, ours = measure(benchmark, repeat=3)
    assert broken.failure == "no such flag"
    assert broken.median_s is None
    assert len(ours.seconds) == 3


def test_table_compares_medians_with_ours() -> None:
    benchmark = Benchmark("b", "some work", (), "a caveat")
    shown = table(
        benchmark, [Outcome("tierce", [1.0, 2.0, 9.0]), Outcome("peer", [3.0, 3.0]), Outcome("z", [], "absent")]
    )
    assert shown.splitlines() == [
        "b: some work",
        "  tierce                2.000 s   1.000 to 9.000       1.00 x",
        "  peer                  3.000 s   3.000 to 3.000       1.50 x",
        "  z                  failed: absent",
        "  (a caveat)",
    ]
