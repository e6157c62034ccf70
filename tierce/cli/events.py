"""``events``: what has happened and happens in a store, in docker's words."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final

from store.journal import Event, Journal
from tierce.cli.command import Settings, format_option
from tierce.cli.declare import command, option
from tierce.cli.filters import filter_option, has_labels, parse_filters
from tierce.cli.units import parse_until
from tierce.documents import Record

_FILTERS: Final = ("container", "event", "image", "label", "network", "scope", "type", "volume")


@command(
    "events",
    short_help="Follow what happens to containers, images, networks and volumes",
    examples="""
tierce events
tierce events --since 10m --until 0s
tierce events --filter type=container --filter event=die --format '{{.Actor.Attributes.name}} {{.Time}}'
tierce events --since 2026-01-02T15:04:05 --format json
""",
)
@option("--since", default="", metavar="TIME", help="From a time, or a duration ago, on  [now]")
@option("--until", default="", metavar="TIME", help="Up to a time, or a duration ago  [for ever]")
@filter_option(", ".join(_FILTERS), "-f")
@format_option
@option("--stream/--no-stream", default=True, help="Wait for more  [on]")
def events(settings: Settings, since: str, until: str, filters: Sequence[str], form: str, stream: bool) -> None:
    """Show what happens, as it happens, until Ctrl-C or a time.

    The last thousands of events are kept in the store.
    """
    wanted = parse_filters(filters, _FILTERS)
    now_s = settings.clock()
    first = _nanoseconds(parse_until(since, now_s, what="time ")) if since else time.time_ns()
    last = _nanoseconds(parse_until(until, now_s, what="time ")) if until else None
    show = _shower(form)

    def more() -> bool:
        return last is None or time.time_ns() <= last

    with settings.store() as store:
        for event in Journal(store.root).read(first, follow=more if stream else None):
            if last is not None and event.time_ns > last:
                break
            if passes(event, wanted):
                sys.stdout.write(show(event) + "\n")
                sys.stdout.flush()


def _nanoseconds(moment_s: float) -> int:
    return round(moment_s * 10**6) * 1000


def passes(event: Event, filters: Mapping[str, Sequence[str]]) -> bool:
    """Whether every key agrees with one of its values, and all labels are there."""
    return all(
        has_labels(event.attributes, values) if key == "label" else any(_matches(event, key, value) for value in values)
        for key, values in filters.items()
    )


def _matches(event: Event, key: str, value: str) -> bool:
    match key:
        case "type":
            return event.kind == value
        case "scope":
            return value == "local"
        case "event":
            return event.action == value or event.action.startswith(f"{value}:")
        case "image":
            known = (event.id, event.attributes.get("name", "")) if event.kind == "image" else ()
            own = event.attributes.get("image", "") if event.kind == "container" else ""
            return any(_is_image(name, value) for name in (*known, own) if name)
        case _:
            known = (event.attributes.get("name", ""), event.id)
            return event.kind == key and (value in known or (key != "volume" and event.id.startswith(value)))


def _is_image(name: str, value: str) -> bool:
    """Its id or name, with or without the tag."""
    repository, colon, tag = name.rpartition(":")
    return value in (name, name.removeprefix("sha256:")) or (bool(colon) and "/" not in tag and value == repository)


# --- how one is shown -----------------------------------------------------------------------


class Document(Record):
    """Docker's ``events.Message``."""

    json_names: ClassVar[Mapping[str, str]] = {
        "Status": "status", "ID": "id", "From": "from", "Scope": "scope", "Time": "time", "TimeNano": "timeNano",
    }  # fmt: skip


def document(event: Event) -> Document:
    """The event as docker's JSON has it."""
    about = event.kind in ("container", "image")
    return Document(
        Status=event.action if about else "",
        ID=event.id if about else "",
        From=event.attributes.get("image", "") if event.kind == "container" else "",
        Type=event.kind,
        Action=event.action,
        Actor=Record(ID=event.id, Attributes=dict(event.attributes)),
        Scope="local",
        Time=event.time_ns // 10**9,
        TimeNano=event.time_ns,
    )


def line(event: Event) -> str:
    """For people, as docker prints it."""
    local = datetime.fromtimestamp(event.time_ns // 10**9).astimezone()
    zone = local.strftime("%z")
    moment = f"{local:%Y-%m-%dT%H:%M:%S}.{event.time_ns % 10**9:09d}{zone[:3]}:{zone[3:5]}"
    pairs = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    return f"{moment} {event.kind} {event.action} {event.id}" + (f" ({pairs})" if pairs else "")


def _shower(form: str) -> Callable[[Event], str]:
    """How one event is shown. Raises InvalidTemplate."""
    if form in ("", "table"):
        return line
    from tierce.cli.templates.execute import render
    from tierce.cli.templates.parse import parse

    body = parse("{{json .}}" if form == "json" else form)
    return lambda event: render(body, document(event))
