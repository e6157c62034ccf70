"""When a rule is due: cron expressions, and intervals as ``@every 90s``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from image.errors import InvalidInput

_EVERY: Final = re.compile(r"@every (\d+(?:\.\d+)?(?:e[+-]?\d+)?)s")
_NAMED: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


def check(due: str) -> None:
    """Raises InvalidInput for what is no schedule."""
    next_due(due, datetime(2000, 1, 1))  # noqa: DTZ001  # any moment does


def next_due(due: str, after: datetime) -> datetime:
    """The first moment after ``after``, in the same time zone. Raises InvalidInput."""
    if every := _EVERY.fullmatch(due):
        return after + timedelta(seconds=max(1.0, float(every[1])))
    from cronsim import CronSim, CronSimError

    try:
        return next(CronSim(_NAMED.get(due, due), after))
    except (CronSimError, StopIteration) as error:
        raise InvalidInput(f"schedule {due[:100]!r}: write five fields as for cron, such as '0 */6 * * *'") from error
