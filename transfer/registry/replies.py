"""What a registry says beside what was asked: errors, warnings, waits, limits.

All of it is hostile: every parser is bounded, returns None or a clamped value for
nonsense, and text that will be shown loses its control characters and its secrets.

Spec: distribution-spec v1.1, "Error Codes", "Warnings"; RFC 9110 (Retry-After).
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from typing import Final

from image.value import dataclass
from transfer.registry.wire import MAX_ERROR_SIZE, Headers, printable

MAX_RETRY_AFTER_S: Final = 120.0
_UNTOLD_PAUSE_S: Final = 1.0
"""After a refusal of too many requests that says nothing of when."""
_QUOTED: Final = 1200
"""Characters of a registry's own words in which secrets are looked for."""
_SECRETS = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9+/=._~-]{8,}|(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*")


def quoted(text: str) -> str:
    """A registry's own words as a message may repeat them: printable, and without what looks like a secret."""
    return printable(_SECRETS.sub(lambda match: f"{match[1]} ..." if match[1] else match[2], printable(text, _QUOTED)))


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of a reply: a code of the distribution-spec, or "" for free text."""

    code: str
    message: str


def problems(body: bytes) -> tuple[Problem, ...]:
    """What an error body says, whatever its form: the spec's, ``{"message"}``, text or HTML."""
    try:
        document = json.loads(body[:MAX_ERROR_SIZE])
    except (ValueError, RecursionError):
        return _plain_problem(body)
    if not isinstance(document, dict):
        return ()
    entries = document.get("errors")
    if not isinstance(entries, list):
        entries = [{"code": document.get("code"), "message": document.get("message") or document.get("details")}]
    found = []
    for entry in entries[:8]:
        if isinstance(entry, dict):
            code, message = entry.get("code"), entry.get("message")
            found.append(
                Problem(
                    printable(code, 60) if isinstance(code, str) else "",
                    quoted(message) if isinstance(message, str) else "",
                )
            )
    return tuple(problem for problem in found if problem.code or problem.message)


def _plain_problem(body: bytes) -> tuple[Problem, ...]:
    text = body[:MAX_ERROR_SIZE].decode("utf-8", "replace")
    if "<html" in text[:1000].lower() or "<!doctype" in text[:1000].lower():
        title = re.search(r"<title>([^<]{0,200})", text, re.IGNORECASE)
        text = title[1] if title else ""
    line = quoted(text)
    return (Problem("", line),) if line else ()


def warnings(headers: Headers) -> list[str]:
    """The texts of ``Warning: 299 - "..."`` fields, printable and without repeats."""
    found = []
    for value in headers.all("Warning"):
        match = re.fullmatch(r'299 - "((?:[^"\\]|\\.)*)"', value.strip()[:4096])
        if match:
            found.append(printable(re.sub(r"\\(.)", r"\1", match[1])))
    return list(dict.fromkeys(filter(None, found)))


def retry_after_s(headers: Headers, now_s: float) -> float | None:
    """Seconds to wait by ``Retry-After``, a number or a date, between 0 and two minutes."""
    value = (headers.get("Retry-After") or "").strip()[:100]
    if not value:
        return None
    if re.fullmatch(r"-?\d{1,20}", value):
        wait = float(value)
    else:
        try:
            wait = parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait, 0.0), MAX_RETRY_AFTER_S)


def pause_s(status: int, headers: Headers, now_s: float) -> float:
    """For how long a host wants no requests at all, by what it answered to one; 0.0 for not at all.

    A refusal says so, or an answer that was the last one before a moment that it names
    (``RateLimit-Reset``). A limit of pulls that names no moment stops pulls alone.
    """
    if status in {429, 503} and (asked := retry_after_s(headers, now_s)) is not None:
        return asked
    if status == 429:
        return _UNTOLD_PAUSE_S
    reset = re.fullmatch(r"\d{1,6}", (headers.get("RateLimit-Reset") or "").strip()[:20])
    found = rate_limit(headers) if reset else None
    return min(float(reset[0]), MAX_RETRY_AFTER_S) if reset and found and found.remaining == 0 else 0.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``remaining`` of ``limit`` requests (usually pulls) in a window of ``window_s`` seconds."""

    limit: int | None
    remaining: int
    window_s: int | None


def rate_limit(headers: Headers) -> RateLimit | None:
    """By ``RateLimit-Limit: 100;w=21600`` and ``RateLimit-Remaining``; None when there are none."""
    limit, remaining = (_limited(headers.get(name) or "") for name in ("RateLimit-Limit", "RateLimit-Remaining"))
    if remaining is None:
        return None
    return RateLimit(limit[0] if limit else None, remaining[0], remaining[1] or (limit[1] if limit else None))


def _limited(value: str) -> tuple[int, int | None] | None:
    match = re.fullmatch(r"(\d{1,12})\s*(?:;\s*w=(\d{1,9}))?", value.strip()[:64])
    return (int(match[1]), int(match[2]) if match[2] else None) if match else None
