"""Templates in regsync's files: Go's, with the functions that regclient adds.

``{{env "USER"}}``, ``{{file "/run/secrets/pass"}}``, ``{{default "x" .Y}}`` and ``{{time.Now}}``, which
has ``Year``, ``Month``, ``Day``, ``Hour``, ``Minute``, ``Second``, ``Unix`` and ``Format`` with Go's layouts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from image.errors import InvalidInput
from tierce.cli.templates.execute import render_text
from tierce.cli.templates.functions import CallError, Method, MoreFunctions, truth

_LAYOUT: Final = {
    "2006": "%Y", "January": "%B", "Jan": "%b", "Monday": "%A", "Mon": "%a", "01": "%m", "02": "%d", "15": "%H",
    "04": "%M", "05": "%S", "MST": "%Z", "-0700": "%z", "03": "%I", "PM": "%p",
}  # fmt: skip
_PARTS: Final = re.compile("|".join(map(re.escape, _LAYOUT)))
_MOST_READ: Final = 64 << 10
_NO_VALUE: Final = "<no value>"


class SyncTemplates:
    """``now`` is the moment that ``time.Now`` gives, with its zone."""

    def __init__(self, environ: Mapping[str, str], now: Callable[[], datetime]) -> None:
        self._environ = environ
        self._now = now
        self._functions: MoreFunctions = {
            "env": (lambda name: environ.get(_text(name), ""), 1, 1),
            "file": (_file, 1, 1),
            "default": (lambda other, value: value if truth(value) else other, 2, 2),
            "time": (lambda: {"Now": self._moment()}, 0, 0),
        }

    def render(self, text: str, data: Mapping[str, Any] | None = None) -> str:
        """A field's value; most are no templates, and cost nothing.

        Raises InvalidInput, also for what names something that is not there: a name is made of it.
        """
        if "{{" not in text:
            return text
        rendered = render_text(text, dict(data or {}), self._functions)
        if _NO_VALUE in rendered:
            raise InvalidInput(f"template {text[:200]!r} names something that is not there")
        return rendered

    def _moment(self) -> dict[str, Any]:
        now = self._now()
        return {
            "Year": now.year, "Month": now.month, "Day": now.day, "Hour": now.hour, "Minute": now.minute,
            "Second": now.second, "Unix": int(now.timestamp()), "Format": Method(lambda layout: _format(now, layout)),
        }  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CallError("wants a text in quotes")
    return value


def _file(path: Any) -> str:
    """A small file without the blanks around it; a secret that is missing is an error, and no empty password."""
    try:
        with Path(_text(path)).open(encoding="utf-8") as file:
            return file.read(_MOST_READ).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CallError(f"read {path}: {(getattr(error, 'strerror', '') or 'not a text').lower()}") from error


def _format(now: datetime, layout: Any) -> str:
    wanted = _PARTS.sub(lambda part: _LAYOUT[part[0]], _text(layout).replace("%", "%%"))
    return now.strftime(wanted)
