"""``tierce build --check`` and ``--call``: what a Dockerfile says, in docker's form, without a build."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from image.errors import InvalidInput
from tierce.cli.command import Settings
from tierce.cli.output import echo
from tierce.cli.terminal import printable

if TYPE_CHECKING:
    from builder.outline import Outline, Target, Wish
    from image.span import Span
    from tierce.build.building import BuildRequest
    from tierce.build.checks import Checked
    from tierce.cli.build_flags import BuildFlags

_CALLS: Final = ("build", "check", "outline", "targets")


def parse_call(text: str) -> tuple[str, str]:
    """``METHOD[,format=text|json]`` as method and format. Raises InvalidInput."""
    method, *options = text.lower().split(",")
    method = {"lint": "check", "": "build"}.get(method, method)
    form = "text"
    for option in options:
        name, _, value = option.partition("=")
        if name != "format" or value not in {"text", "json"}:
            raise InvalidInput(f"invalid --call option {option!r}: want format=text or format=json")
        form = value
    if method not in _CALLS:
        raise InvalidInput(f"invalid --call {method!r}: want {', '.join(_CALLS)}")
    return method, form


def answer(settings: Settings, flags: BuildFlags, request: BuildRequest, call: tuple[str, str]) -> int:
    """Print what was asked for; the exit code, which is 1 for a check with warnings."""
    from builder import outline
    from tierce.build.building import with_source_lines
    from tierce.build.checks import read_source

    method, form = call
    if method == "check":
        return _answer_check(_checked(settings, flags, request), form)
    source = read_source(request)
    with with_source_lines(request):
        if method == "targets":
            found = outline.targets(source, request.plan)
            echo(_json([_target(t) for t in found]) if form == "json" else _targets_text(found), nl=False)
        else:
            asked = outline.outline(source, request.plan)
            echo(_json(_outline(asked)) if form == "json" else _outline_text(asked), nl=False)
    return 0


def _checked(settings: Settings, flags: BuildFlags, request: BuildRequest) -> Checked:
    from tierce.build.base_images import StoredImages
    from tierce.build.checks import check_build

    with settings.store() as store, store.session() as session:
        images = StoredImages(store, session, settings.environ, flags.access())
        return check_build(request, images.stored, images.describe)


def _answer_check(checked: Checked, form: str) -> int:
    if form == "json":
        echo(_json({"warnings": [_warning(checked, position) for position in range(len(checked.warnings))]}), nl=False)
    else:
        echo(_check_text(checked), nl=False)
    return 1 if checked.warnings else 0


def _check_text(checked: Checked) -> str:
    from builder.dockerfile.excerpt import excerpt

    count = len(checked.warnings)
    if not count:
        return "Check complete, no warnings found.\n"
    said = "1 warning has" if count == 1 else f"{count} warnings have"
    blocks = [
        f"\nWARNING: {warning.rule.name}\n{printable(warning.message)}\n{excerpt(checked.lines, warning.span)}\n"
        for warning in checked.warnings
    ]
    return f"Check complete, {said} been found!\n" + "".join(blocks)


def _outline_text(outline: Outline) -> str:
    blocks = []
    if outline.name or outline.description:
        rows = [("TARGET:", outline.name or "(default)")]
        rows += [("DESCRIPTION:", outline.description)] if outline.description else []
        blocks.append(_columns(rows))
    if outline.arguments:
        rows3 = [(argument.name, argument.value or "", argument.description) for argument in outline.arguments]
        blocks.append(_columns([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows3]))
    for title, wishes in (("SECRET", outline.secrets), ("SSH", outline.agents)):
        if wishes:
            rows = [(wish.name, "true" if wish.required else "") for wish in wishes]
            blocks.append(_columns([(title, "REQUIRED"), *rows]))
    return "\n".join(blocks)


def _targets_text(targets: Iterable[Target]) -> str:
    rows = [("TARGET", "BASE", "DESCRIPTION")]
    for target in targets:
        default = "(default)" if target.default else ""
        rows.append((f"{target.name} {default}".strip(), target.base, target.description))
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Left-aligned columns with three spaces between them."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown)
    return "\n".join(lines) + "\n"


# The same as JSON, with docker's keys


def _json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def _warning(checked: Checked, position: int) -> dict[str, Any]:
    warning = checked.warnings[position]
    return {
        "ruleName": warning.rule.name,
        "description": warning.rule.description,
        "detail": warning.message,
        "location": _location(warning.span),
    }


def _target(target: Target) -> dict[str, Any]:
    return _without_empty({
        "name": target.name, "default": target.default, "description": target.description, "base": target.base,
        "platform": target.platform, "location": _location(target.span),
    })  # fmt: skip


def _outline(outline: Outline) -> dict[str, Any]:
    def wishes(found: Iterable[Wish]) -> list[dict[str, Any]]:
        return [_without_empty({"name": wish.name, "required": wish.required}) for wish in found]

    arguments = [
        _without_empty({"name": a.name, "description": a.description, "value": a.value, "location": _location(a.span)})
        for a in outline.arguments
    ]
    return _without_empty({
        "name": outline.name, "description": outline.description, "args": arguments,
        "secrets": wishes(outline.secrets), "ssh": wishes(outline.agents),
    })  # fmt: skip


def _location(span: Span) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": span.start}, "end": {"line": span.end}}]}


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value not in ("", None, [], False)}
