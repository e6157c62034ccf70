"""Sizes and ages in docker's words."""

from __future__ import annotations

from image.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime, timezone
    from typing import Final

_DECIMAL: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DURATION: Final = r"(\d+(?:\.\d+)?)(h|ms|m|s)"
_SIZE: Final = r"(?i)(\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?"
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def human_size(size: float) -> str:
    """Bytes in powers of 1000 with three digits: ``7.81MB``."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_DECIMAL) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g}{_DECIMAL[unit]}"


def binary_size(size: float) -> str:
    """Bytes in powers of 1024 with four digits: ``7.812MiB``, as docker shows memory."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_BINARY) - 1:
        value /= 1024
        unit += 1
    return f"{value:.4g}{_BINARY[unit]}"


def human_duration(seconds: float) -> str:
    """``3 minutes``, ``About an hour``: rounded as docker rounds."""
    whole, minutes, hours = int(seconds), int(seconds / 60), int(seconds / 3600 + 0.5)
    if whole < 60:
        return "Less than a second" if whole < 1 else "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(then: str, now_s: float) -> str:
    """How long ago an RFC 3339 time was; ``N/A`` when there is none."""
    moment = parse_time(then)
    return "N/A" if moment is None else human_duration(now_s - moment.timestamp()) + " ago"


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time with any number of fraction digits; None for what is none."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def go_time(moment: datetime | None, zone: timezone | None = None) -> str:
    """A time as Go prints it, to the second: ``2026-01-02 03:04:05 +0000 UTC``."""
    if moment is None:
        return "N/A"
    local = moment.astimezone(zone)
    return local.strftime("%Y-%m-%d %H:%M:%S %z %Z")


def parse_until(text: str, now_s: float, *, what: str = "filter until=") -> float:
    """The moment, in seconds since 1970, that ``what`` names: ``24h``, ``10m``, RFC 3339 or seconds.

    Raises InvalidInput.
    """
    import re  # lists of images and containers do without

    if text and re.sub(_DURATION, "", text) == "":
        return now_s - sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_DURATION, text))
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    moment = parse_time(text)
    if moment is None:
        raise InvalidInput(f"invalid {what}{text!r}: want a duration such as 24h, or a time such as 2026-01-02")
    return moment.timestamp()


def parse_size(text: str) -> int:
    """Bytes that a user wrote: ``512m``, ``10GB``, ``1024``; multiples of 1024, as docker counts memory.

    Raises InvalidInput.
    """
    import re

    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise InvalidInput(f"invalid size {text!r}: want a number and b, k, m, g or t, such as 512m")
    return int(float(match[1]) * 1024 ** ("bkmgtp".index(match[2].lower() or "b")))
