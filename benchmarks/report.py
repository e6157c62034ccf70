"""Show outcomes as a table, keep them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.measure import Benchmark, Outcome

US = "tierce"


def table(benchmark: Benchmark, outcomes: Iterable[Outcome]) -> str:
    """Medians, spread, and each contender's time as a multiple of Tierce's."""
    outcomes = list(outcomes)
    ours = next((outcome.median_s for outcome in outcomes if outcome.contender == US), None)
    lines = [f"{benchmark.name}: {benchmark.work}", *(_row(outcome, ours) for outcome in outcomes)]
    return "\n".join([*lines, *([f"  ({benchmark.note})"] if benchmark.note else [])])


def _row(outcome: Outcome, ours: float | None) -> str:
    median = outcome.median_s
    if median is None:
        return f"  {outcome.contender:<18} failed: {outcome.failure[:90]}"
    ratio = f"{median / ours:6.2f} x" if ours else ""
    spread = f"{min(outcome.seconds):.3f} to {max(outcome.seconds):.3f}"
    return f"  {outcome.contender:<18} {median:8.3f} s   {spread:<18} {ratio}"


def write_json(path: Path, facts: Mapping[str, str], results: Mapping[str, list[Outcome]]) -> None:
    """All figures, for comparison with other runs."""
    document = {
        "machine": dict(facts),
        "benchmarks": {
            name: {outcome.contender: outcome.failure or outcome.seconds for outcome in outcomes}
            for name, outcomes in results.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
