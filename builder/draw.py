"""The graph as a drawing, with what the cache holds: Graphviz, Mermaid, or a picture by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, assert_never

from builder.graph import FromContext, FromGit, FromImage, FromScratch, FromUrl, Graph, Step, inputs_first
from image.value import dataclass

Form = Literal["dot", "mermaid", "svg"]

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 250, 44, 60, 18, 20
_LABEL_LENGTH = 36


@dataclass(frozen=True, slots=True)
class _Drawing:
    """What all forms draw: steps with short names, and edges; ``is_base`` ones are solid."""

    steps: Sequence[Step]
    names: Mapping[str, str]
    edges: Sequence[tuple[Step, Step, bool]]
    cached: Mapping[str, float]


def draw(graph: Graph, cached: Mapping[str, float], form: Form) -> str:
    """``cached`` maps the id of each step whose result is at hand to the seconds it once took.

    Such steps are green. Sources took no time of their own.
    """
    steps = list(inputs_first(graph.target))
    names = {step.id: f"s{number}" for number, step in enumerate(steps)}
    edges = [(source, step, source is step.base) for step in steps for source in step.inputs]
    drawing = _Drawing(steps, names, edges, cached)
    match form:
        case "dot":
            return _dot(drawing)
        case "mermaid":
            return _mermaid(drawing)
        case "svg":
            return _svg(drawing)
        case _:
            assert_never(form)


def _dot(drawing: _Drawing) -> str:
    lines = ["digraph build {", '  rankdir="LR"; node [shape=box, style="rounded,filled", fillcolor=white];']
    for step in drawing.steps:
        colour = ", fillcolor=palegreen" if step.id in drawing.cached else ""
        label = _label(step, drawing).replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  {drawing.names[step.id]} [label="{label}"{colour}];')
    for source, step, is_base in drawing.edges:
        style = "" if is_base else " [style=dashed]"
        lines.append(f"  {drawing.names[source.id]} -> {drawing.names[step.id]}{style};")
    return "\n".join([*lines, "}"])


def _mermaid(drawing: _Drawing) -> str:
    lines = ["flowchart LR"]
    for step in drawing.steps:
        label = _label(step, drawing).replace('"', "#quot;")
        box = f'(["{label}"])' if _is_source(step) else f'["{label}"]'
        lines.append(f"  {drawing.names[step.id]}{box}")
    for source, step, is_base in drawing.edges:
        lines.append(f"  {drawing.names[source.id]} {'-->' if is_base else '-.->'} {drawing.names[step.id]}")
    hit = [drawing.names[step.id] for step in drawing.steps if step.id in drawing.cached]
    if hit:
        lines += [f"  class {','.join(hit)} cached", "  classDef cached fill:#cfc"]
    return "\n".join(lines)


def _svg(drawing: _Drawing) -> str:
    """Columns by distance from the sources, so that what can run side by side stands side by side."""
    places = _places(drawing)
    width = max(x for x, _ in places.values()) + _BOX_WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + _BOX_HEIGHT + _MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">']
    for source, step, is_base in drawing.edges:
        (x1, y1), (x2, y2) = places[source.id], places[step.id]
        x1, y1, y2 = x1 + _BOX_WIDTH, y1 + _BOX_HEIGHT // 2, y2 + _BOX_HEIGHT // 2
        dash = "" if is_base else ' stroke-dasharray="4 3"'
        curve = f"M{x1} {y1}C{x1 + _GAP_X} {y1} {x2 - _GAP_X} {y2} {x2} {y2}"
        lines.append(f'<path d="{curve}" fill="none" stroke="#888"{dash}/>')
    lines += [_svg_box(step, places[step.id], drawing) for step in drawing.steps]
    return "\n".join([*lines, "</svg>"])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _svg_box(step: Step, place: tuple[int, int], drawing: _Drawing) -> str:
    x, y = place
    fill = "#dfd" if step.id in drawing.cached else "#fff"
    where, _, what = step.name.partition("] ")
    name = what if len(what) <= _LABEL_LENGTH else what[: _LABEL_LENGTH - 1] + "…"
    radius = _BOX_HEIGHT // 2 if _is_source(step) else 5
    return (
        f'<g><title>{_escaped(step.name)}</title><rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}"'
        f' rx="{radius}" fill="{fill}" stroke="#444"/>'
        f'<text x="{x + 14}" y="{y + 17}" fill="#777">{_escaped(where.lstrip("["))}{_time(step, drawing)}</text>'
        f'<text x="{x + 14}" y="{y + 34}">{_escaped(name)}</text></g>'
    )


def _places(drawing: _Drawing) -> dict[str, tuple[int, int]]:
    """The top left corner of each step's box."""
    columns: dict[str, int] = {}
    filled: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for step in drawing.steps:
        column = max((columns[source.id] + 1 for source in step.inputs), default=0)
        columns[step.id] = column
        row = filled.get(column, 0)
        filled[column] = row + 1
        places[step.id] = (_MARGIN + column * (_BOX_WIDTH + _GAP_X), _MARGIN + row * (_BOX_HEIGHT + _GAP_Y))
    return places


def _label(step: Step, drawing: _Drawing) -> str:
    return step.name + _time(step, drawing)


def _time(step: Step, drawing: _Drawing) -> str:
    took_s = drawing.cached.get(step.id, 0.0)
    return f" · {took_s:.1f} s" if took_s else ""


def _is_source(step: Step) -> bool:
    return isinstance(step.operation, FromImage | FromScratch | FromContext | FromUrl | FromGit)
