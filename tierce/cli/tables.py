"""Rows of values as docker shows them: a table, JSON lines, or the user's own template.

``--format`` says which: nothing or ``table``, ``json``, ``table TEMPLATE`` or ``TEMPLATE``.
Templates (and lark with them) are loaded only when one is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tierce.cli.terminal import cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_PADDING: Final = 3
_MIN_WIDTH: Final = 10


def render(rows: Iterable[Mapping[str, str]], headers: Mapping[str, str], columns: Sequence[str], form: str) -> str:
    """The rows as text that ends with a newline, or is empty.

    ``headers`` maps each field to its column's title; ``columns`` are those of the plain table.
    Raises InvalidTemplate.
    """
    form = form.strip() if form.strip() in {"", "table", "json"} else form
    if form in {"", "table"}:
        return align([[headers[name] for name in columns], *([row[name] for name in columns] for row in rows)])
    if form == "json":
        form = "{{json .}}"
    return _templated(rows, headers, form)


def _templated(rows: Iterable[Mapping[str, str]], headers: Mapping[str, str], form: str) -> str:
    from tierce.cli.templates.execute import render as render_template
    from tierce.cli.templates.parse import parse
    from tierce.documents import Record

    is_table = form.startswith("table")
    form = form.removeprefix("table").strip() if is_table else form
    body = parse(form.replace(r"\t", "\t").replace(r"\n", "\n"))
    lines = [render_template(body, Record(sorted(row.items()))) for row in rows]
    if not is_table:
        return "".join(line + "\n" for line in lines)
    lines.insert(0, render_template(body, Record(sorted(headers.items()))))
    return align([line.split("\t") for text in lines for line in text.split("\n")])


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, as Go's tabwriter sets them: a row's last cell is not padded."""
    widths: list[int] = []
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column : column + 1] = [max(cells(cell) + _PADDING, _MIN_WIDTH, *widths[column : column + 1])]
    lines = []
    for row in rows:
        padded = [cell + " " * (widths[column] - cells(cell)) for column, cell in enumerate(row[:-1])]
        lines.append("".join((*padded, *row[-1:])) + "\n")
    return "".join(lines)


def render_documents(documents: Sequence[object], form: str) -> str:
    """``inspect``: all documents as one indented array, compact ``json``, or a template for each."""
    from tierce.cli.templates.printing import to_json

    if form == "":
        return to_json(list(documents), indent=4) + "\n"
    if form == "json":
        return to_json(list(documents)) + "\n"
    from tierce.cli.templates.execute import render as render_template
    from tierce.cli.templates.parse import parse

    body = parse(form)
    return "".join(render_template(body, document) + "\n" for document in documents)
