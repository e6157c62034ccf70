"""Sizes and ages as docker words them."""

from __future__ import annotations

from datetime import UTC

import pytest

from image.errors import InvalidInput
from tierce.cli.units import ago, go_time, human_duration, human_size, parse_size, parse_time, parse_until


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (7_810_000, "7.81MB"), (123_456_789, "123MB"),
     (1_500_000_000, "1.5GB"), (10**18, "1EB"), (10**21, "1e+03EB")],
)  # fmt: skip
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (179, "2 minutes"),
        (3599, "59 minutes"), (3600, "About an hour"), (3 * 3600, "3 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"), (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02 03:04:05 +0000 UTC"),
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02 03:04:05 +0000 UTC"),
        ("2026-01-02T05:04:05+02:00", "2026-01-02 03:04:05 +0000 UTC"),
        ("", "N/A"),
        ("yesterday", "N/A"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert go_time(parse_time(text), UTC) == expected


def test_ago() -> None:
    assert ago("1970-01-01T00:00:00Z", 7200) == "2 hours ago"
    assert ago("", 7200) == "N/A"


@pytest.mark.parametrize(
    ("text", "moment_s"),
    [
        ("24h", 100_000 - 86_400),
        ("1h30m", 100_000 - 5400),
        ("10m", 99_400),
        ("500", 500),
        ("1970-01-01T01:00:00Z", 3600),
    ],
)
def test_until(text: str, moment_s: float) -> None:
    assert parse_until(text, 100_000) == moment_s


@pytest.mark.parametrize("text", ["", "soon", "24x", "-3h"])
def test_until_refuses(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid filter until"):
        parse_until(text, 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 << 20), ("1g", 1 << 30), ("1024", 1024), ("10GB", 10 << 30), ("1.5k", 1536), ("7b", 7)],
)
def test_sizes_of_users(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "12 parsecs", "-1m"])
def test_sizes_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid size"):
        parse_size(text)
