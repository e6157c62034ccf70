"""What follows from the answers of a container that is asked after its health."""

from __future__ import annotations

import pytest

from runner.containers.probe import Answer, judge

WELL, ILL = 0, 1


def asked(codes: list[int], *, forgiving: int = 0, output: bytes = b"") -> dict[str, object]:
    """The document after these answers, of which the first ``forgiving`` came in the start period."""
    known: dict[str, object] = {"Status": "starting", "FailingStreak": 0, "Log": []}
    for position, code in enumerate(codes):
        known = judge(known, Answer("then", "now", code, output), retries=2, forgiving=position < forgiving)
    return known


@pytest.mark.parametrize(
    ("codes", "forgiving", "status", "streak"),
    [
        ([WELL], 0, "healthy", 0),
        ([ILL], 0, "starting", 1),
        ([ILL, ILL], 0, "unhealthy", 2),
        ([ILL, ILL, WELL], 0, "healthy", 0),
        ([WELL, ILL], 0, "healthy", 1),
        ([WELL, ILL, -1], 0, "unhealthy", 2),
        ([ILL, ILL, ILL], 3, "starting", 0),
        ([ILL, ILL, ILL], 2, "starting", 1),
        ([WELL, ILL, ILL], 3, "unhealthy", 2),
    ],
)
def test_status(codes: list[int], forgiving: int, status: str, streak: int) -> None:
    known = asked(codes, forgiving=forgiving)
    assert (known["Status"], known["FailingStreak"]) == (status, streak)


def test_five_answers_are_kept_and_the_beginning_of_what_they_say() -> None:
    log = asked([WELL] * 4 + [ILL] * 3, output=b"x" * 5000)["Log"]
    assert isinstance(log, list)
    assert [answer["ExitCode"] for answer in log] == [WELL, WELL, ILL, ILL, ILL]
    assert log[0]["Output"] == "x" * 4096 + "..."
