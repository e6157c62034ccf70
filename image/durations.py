"""Durations as users of docker and regsync write them: ``30s``, ``1m30s``, ``500ms``.

HEALTHCHECK's are read by the Dockerfile's own parser, which answers in Go's words.
"""

from __future__ import annotations

from image.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_PART: Final = r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)"
_UNIT_NS: Final = {
    "ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip


def parse_duration_ns(text: str) -> int:
    """Nanoseconds. Raises InvalidInput."""
    import re  # most commands name none

    if not text or re.sub(_PART, "", text) not in ("", "0"):
        raise InvalidInput(f"invalid duration {text!r}: want a number and a unit, such as 30s or 1m30s")
    return sum(int(float(number) * _UNIT_NS[unit]) for number, unit in re.findall(_PART, text))
