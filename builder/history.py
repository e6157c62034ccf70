"""History entries in the words of docker, for instructions that only configure.

Spec: dockerfile.md 7.
"""

from __future__ import annotations

from collections.abc import Iterable

from image.config import Healthcheck


def pairs(given: Iterable[tuple[str, str]]) -> str:
    """ENV's and LABEL's pairs, without quotes."""
    return " ".join(f"{name}={value}" for name, value in given)


def health(check: Healthcheck) -> str:
    """A health check as Go prints the structure."""
    times = {
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
    }
    fields = [f"{name}:{go_duration(time_ns)}" for name, time_ns in times.items()]
    return f"{{Test:[{' '.join(check.test)}] {' '.join(fields)} Retries:{check.retries}}}"


def go_duration(duration_ns: int) -> str:
    """``1h0m0s``, ``1m30s``, ``1.5s``, ``20ms``: as Go's ``time.Duration`` prints itself."""
    if duration_ns < 0:
        return "-" + go_duration(-duration_ns)
    for unit, unit_ns in (("ns", 1), ("\N{MICRO SIGN}s", 10**3), ("ms", 10**6)):
        if 0 < duration_ns < unit_ns * 1000:
            return _decimal(duration_ns, unit_ns) + unit
    minutes, rest_ns = divmod(duration_ns, 60 * 10**9)
    seconds = _decimal(rest_ns, 10**9) + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _decimal(number: int, unit: int) -> str:
    whole, fraction = divmod(number, unit)
    digits = str(fraction).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if fraction else str(whole)
