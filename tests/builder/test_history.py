"""builder/history.py: history entries in the words of docker."""

from __future__ import annotations

import pytest

from builder.history import go_duration, health
from image.config import Healthcheck


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0s"), (1, "1ns"), (1500, "1.5\u00b5s"), (20_000_000, "20ms"), (1_500_000, "1.5ms"), (10**9, "1s"),
        (1_500_000_000, "1.5s"), (90 * 10**9, "1m30s"), (3600 * 10**9, "1h0m0s"), (5025_250_000_000, "1h23m45.25s"),
        (-60 * 10**9, "-1m0s"),
    ],
)  # fmt: skip
def test_durations_as_go_prints_them(duration_ns: int, text: str) -> None:
    assert go_duration(duration_ns) == text


def test_a_health_check() -> None:
    check = Healthcheck(("CMD-SHELL", "curl x"), 30 * 10**9, 10**9, retries=3)
    fields = "Interval:30s Timeout:1s StartPeriod:0s StartInterval:0s Retries:3"
    assert health(check) == f"{{Test:[CMD-SHELL curl x] {fields}}}"
